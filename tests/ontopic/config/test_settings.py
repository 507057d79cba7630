"""The configuration file: each mistake is named by file and key, with the valid keys; each key is described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from ontopic.config.durations import duration, in_words
from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import LLMJudgeSettings, LocalJudgeSettings, Settings, load_settings
from ontopic.errors import UserError
from ontopic.judges.llm.templates import load_template

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
LOCAL: dict[str, Any] = yaml.safe_load((CONFIGS / "local.yaml").read_text(encoding="utf-8"))


def written(folder: Path, content: dict[str, Any] | str | bytes) -> Path:
    path = folder / "mine.yaml"
    text = yaml.safe_dump(content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message(folder: Path, content: dict[str, Any] | str | bytes) -> str:
    """What is said of a wrong configuration, without the name of the file that each message starts with."""
    path = written(folder, content)
    with pytest.raises(UserError) as caught:
        load_settings(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    settings = load_settings(path)
    assert load_policy(settings.policy).name
    if isinstance(settings.judge, LLMJudgeSettings):
        assert load_template(settings.judge_prompts / f"{settings.judge.template}.txt", settings.judge.grading)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_configuration_that_was_kept_as_json_is_the_same(path: Path) -> None:
    """As ZenML keeps the parameters of steps."""
    settings = load_settings(path)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("given", ["90s", "15m", "12h", "7d", "0d", "1s", "60m", "25h"])
def test_a_length_of_time_is_written_as_it_is_read(given: str) -> None:
    assert duration(in_words(duration(given))) == duration(given)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    path = written(folder, LOCAL | {"policy": "policies/mine.yaml", "judge_prompts": "../prompts"})
    monkeypatch.chdir(tmp_path)
    for spelling in (path, path.relative_to(tmp_path)):
        settings = load_settings(spelling)
        assert settings.policy == folder / "policies" / "mine.yaml"
        assert settings.judge_prompts == tmp_path / "prompts"


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, LOCAL))
    assert settings.judge == LocalJudgeSettings(kind="local")
    assert settings.teacher is None
    assert settings.judge_prompts == tmp_path / "judge_prompts"


def test_an_unknown_key_is_named_with_the_valid_ones(tmp_path: Path) -> None:
    said = message(tmp_path, LOCAL | {"modle": 1})
    assert said == f": unknown key 'modle'; the valid keys there are {', '.join(Settings.model_fields)}"


ENDPOINT = (
    "model, base_url, api_key_variable, concurrency, timeout_s, max_retries, usd_per_million_prompt_tokens, "
    "usd_per_million_completion_tokens, budget_usd, budget_tokens"
)


@pytest.mark.parametrize(
    ("section", "content", "key", "valid"),
    [
        (
            "model",
            {"name": "embedded", "nmae": 1},
            "model.nmae",
            "name, precision, chat_template, max_new_tokens, batch_size",
        ),
        ("teacher", {"model": "m", "tmeout": 1}, "teacher.tmeout", f"{ENDPOINT}, wrong_answers"),
        ("judge", {"kind": "local", "model": "m"}, "judge.model", "kind"),
        (
            "judge",
            {"kind": "openai", "model": "m", "templte": "rubric"},
            "judge.templte",
            f"{ENDPOINT}, kind, template, grading, weighted",
        ),
    ],
    ids=["model", "teacher", "local judge", "llm judge"],
)
def test_an_unknown_nested_key_is_named_with_the_valid_ones_there(
    tmp_path: Path, section: str, content: dict[str, Any], key: str, valid: str
) -> None:
    assert message(tmp_path, LOCAL | {section: content}) == f": unknown key '{key}'; the valid keys there are {valid}"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("traffic", "questions", "many"),
        ("traffic", "in_scope_share", 1.5),
        ("model", "name", 12),
        ("model", "precision", "perhaps"),
        ("training", "learning_rate", -1),
        ("serving", "port", 70_000),
    ],
)
def test_a_mistyped_value_is_named_with_what_was_given(tmp_path: Path, section: str, key: str, value: object) -> None:
    said = message(tmp_path, LOCAL | {section: LOCAL.get(section, {}) | {key: value}})
    assert said.startswith(f": '{section}.{key}' is wrong: input should be")
    assert said.endswith(f"(got '{value}')")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert message(tmp_path, LOCAL | {"model": {}}) == ": the key 'model.name' is missing; add it"
    assert message(tmp_path, LOCAL | {"judge": {"kind": "openai"}}) == ": the key 'judge.model' is missing; add it"
    without = {name: section for name, section in LOCAL.items() if name != "policy"}
    assert message(tmp_path, without) == ": the key 'policy' is missing; add it"


def test_an_unknown_kind_of_judge_is_named_with_the_known_ones(tmp_path: Path) -> None:
    said = message(tmp_path, LOCAL | {"judge": {"kind": "human"}})
    assert said.startswith(": 'judge' is wrong: input tag 'human'")
    assert "'local', 'openai'" in said


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The models of a file: of its keys, of the keys below them, and of what lists and unions hold."""
    found, open_ = {model}, [field.annotation for field in model.model_fields.values()]
    while open_:
        annotation = open_.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= sections(annotation)
        open_ += get_args(annotation)
    return found


@pytest.mark.parametrize("file", [Settings, Policy])
def test_each_key_has_a_sentence_for_the_reference(file: type[BaseModel]) -> None:
    keys = [(model.__name__, name, field) for model in sections(file) for name, field in model.model_fields.items()]
    assert len(keys) > 20
    for model, name, field in keys:
        said = field.description
        assert said, f"{model}.{name} has no description"
        assert said.endswith("."), f"{model}.{name}"
        assert not re.search(r"\.\s", said), f"{model}.{name} has more than one sentence"
        assert len(said.split()) <= 40, f"{model}.{name}: {said}"


def test_a_limit_in_dollars_needs_the_prices_of_every_judge(tmp_path: Path) -> None:
    prices = {"usd_per_million_prompt_tokens": 1, "usd_per_million_completion_tokens": 2}
    asked = {"kind": "openai", "model": "gpt-4o"}
    limited = LOCAL | {"monitoring": LOCAL["monitoring"] | {"limits": {"judge_usd": 3}}}
    for unpriced in (
        {"judge": asked},
        {"judge": {"kind": "panel", "judges": [{"kind": "local"}, asked]}},
        {"judges_beside": [{"name": "second", "judge": asked}]},
    ):
        told = message(tmp_path, limited | unpriced)
        assert "monitoring.limits.judge_usd needs the prices of gpt-4o" in told
    priced = load_settings(written(tmp_path, limited | {"judge": asked | prices}))
    assert priced.monitoring.limits.judge_usd == 3
    assert load_settings(written(tmp_path, limited)).monitoring.limits.errors == 0.05
