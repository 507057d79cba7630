"""Configuration and policy files: each mistake is named by file and key, with the valid keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

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


@pytest.mark.parametrize("path", sorted((CONFIGS / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads(path: Path) -> None:
    policy = load_policy(path)
    assert policy.registered_model == f"ontopic-{path.stem}"
    assert {example.verdict for example in policy.examples} == {"pass", "fail"}


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
        ("model", {"name": "embedded", "nmae": 1}, "model.nmae", "name, precision, max_new_tokens, batch_size"),
        ("teacher", {"model": "m", "tmeout": 1}, "teacher.tmeout", ENDPOINT),
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


def test_every_mistake_in_a_file_is_named_at_once(tmp_path: Path) -> None:
    said = message(tmp_path, LOCAL | {"modle": 1, "traffic": {"questions": "many", "fresh_questions": 4}})
    assert "'modle'" in said
    assert "'traffic.questions'" in said


def test_broken_yaml_is_named_by_its_line(tmp_path: Path) -> None:
    assert message(tmp_path, "policy: a\nmodel: [1, 2\njudge: b\n").startswith(":3: is not valid YAML (")


@pytest.mark.parametrize(
    "content",
    ["model: 2024-13-45", "model: " + "9" * 5000, "[" * 1500, "model: \x01", "a: b: c"],
    ids=["date", "number", "nesting", "control character", "colons"],
)
def test_yaml_that_cannot_be_read_is_a_user_error(tmp_path: Path, content: str) -> None:
    assert "is not valid YAML (" in message(tmp_path, content)


@pytest.mark.parametrize("content", ["", "- a\n", "text\n"])
def test_a_file_without_keys_is_told_which_ones_it_needs(tmp_path: Path, content: str) -> None:
    assert message(tmp_path, content).startswith(": must hold keys and values; the valid keys are policy, ")


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in message(tmp_path, b"policy: caf\xe9")
    with pytest.raises(UserError, match=r"nothing\.yaml: cannot be read"):
        load_settings(tmp_path / "nothing.yaml")


def policy_with(banking: Policy, **changes: object) -> dict[str, Any]:
    return banking.model_dump(mode="json") | changes


def test_a_policy_reads_its_data_relative_to_itself(tmp_path: Path, banking: Policy) -> None:
    (tmp_path / "mine.jsonl").write_text("{}")
    policy = load_policy(written(tmp_path, policy_with(banking, questions="mine.jsonl")))
    assert policy.questions == str(tmp_path / "mine.jsonl")
    assert policy.records == banking.records


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nmae": 1}, f"unknown key 'nmae'; the valid keys there are {', '.join(Policy.model_fields)}"),
        (
            {"gate": {"guardrail_score": 0.9, "over_refusal": 0.1, "leak": 0.1, "improvement": 0, "laek": 0}},
            "unknown key 'gate.laek'; the valid keys there are guardrail_score, over_refusal, leak, improvement",
        ),
        (
            {"examples": [{"question": "a", "answer": "b", "verdict": "pass", "why": "c", "wy": ""}] * 2},
            "unknown key 'examples.0.wy'; the valid keys there are question, answer, verdict, why",
        ),
        ({"examples": []}, "'examples' is wrong: list should have at least 2 items"),
        ({"name": "My Bank"}, "'name' is wrong: string should match pattern"),
        ({"alert_threshold": 85}, "'alert_threshold' is wrong: input should be less than or equal to 1"),
    ],
    ids=["key", "nested key", "key in a list", "too few examples", "name", "threshold"],
)
def test_a_mistake_in_a_policy_is_named(tmp_path: Path, banking: Policy, changes: dict[str, object], said: str) -> None:
    path = written(tmp_path, policy_with(banking, **changes))
    with pytest.raises(UserError) as caught:
        load_policy(path)
    assert f"{path}: {said}" in str(caught.value)
