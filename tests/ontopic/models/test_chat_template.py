"""A chat template has the roles that it has: what the others say stands in the user's turns, wherever a prompt is
made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gemma_shaped
import pytest
from jinja2 import TemplateError
from loopback import ROOT
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ontopic.commands.readiness import check_ready
from ontopic.config.model_settings import ModelSettings
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.models.chat_template import chat_prompts, templated
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.state.workspace import Workspace
from ontopic.training.orpo import preference_row
from ontopic.training.preferences import Preference
from serving.prompts import Prompts

LEAVES_OUT = (
    "{% for m in messages if m.role in ('user', 'assistant') %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
KNOWS_SYSTEM = LEAVES_OUT.replace("('user',", "('system', 'user',")
TAKES_ALL = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def conversation(*turns: str) -> list[dict[str, str]]:
    """Messages from texts such as ``user: hello``."""
    pairs = [turn.partition(": ") for turn in turns]
    return [{"role": role, "content": content} for role, _, content in pairs]


@pytest.fixture(scope="module")
def gemma_tokenizer(gemma_folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(gemma_folder)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        (["system: Be brief.", "user: hi"], ["user\nBe brief.\n\nhi"]),
        (["system: A", "system: B", "user: hi"], ["user\nA\n\nB\n\nhi"]),
        (["user: hi", "assistant: yes?", "system: B", "user: go"], ["user\nhi", "model\nyes?", "user\nB\n\ngo"]),
        (["user: hi", "system: late"], ["user\nhi\n\nlate"]),
        (
            ["system: A", "user: q", "assistant: c()", "tool: 42", "user: so?"],
            ["user\nA\n\nq", "model\nc()", "user\nResult of a tool:\n42\n\nso?"],
        ),
    ],
    ids=["first", "two", "amid", "last", "with a tool"],
)
def test_what_a_template_has_no_role_for_stands_in_the_users_turns(
    gemma_tokenizer: PreTrainedTokenizerBase, turns: list[str], said: list[str]
) -> None:
    (prompt,) = chat_prompts(gemma_tokenizer, [conversation(*turns)])
    expected = "".join(f"<start_of_turn>{turn}<end_of_turn>\n" for turn in said)
    assert prompt == f"<bos>{expected}<start_of_turn>model\n"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LEAVES_OUT, "<user>A\n\nq<assistant>c()<user>Result of a tool:\n42<assistant>"),
        (KNOWS_SYSTEM, "<system>A<user>q<assistant>c()<user>Result of a tool:\n42<assistant>"),
        (TAKES_ALL, "<system>A<user>q<assistant>c()<tool>42"),
    ],
    ids=["leaves out", "knows system", "takes all"],
)
def test_a_role_that_a_template_has_is_kept(gemma_folder: Path, template: str, said: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gemma_folder)
    tokenizer.chat_template = template
    assert chat_prompts(tokenizer, [conversation("system: A", "user: q", "assistant: c()", "tool: 42")]) == [said]


def test_a_conversation_that_no_form_mends_is_refused(gemma_tokenizer: PreTrainedTokenizerBase) -> None:
    for turns in (["user: a", "user: b"], ["assistant: a", "system: b", "user: c"]):
        with pytest.raises(TemplateError, match="must alternate"):
            chat_prompts(gemma_tokenizer, [conversation(*turns)])


def test_training_evaluation_and_serving_ask_alike(gemma_folder: Path) -> None:
    model = load(gemma_folder, "float32")
    messages = conversation("system: Be brief.<end_of_turn>", "user: how do I block my card")
    served = Prompts(model).ids(messages, 4)
    pair = Preference(
        question="how do I block my card",
        history=({"role": "system", "content": "Be brief.<end_of_turn>"},),
        chosen="Freeze it.",
        rejected="No.",
        in_scope=True,
        source="",
        record_id="",
    )
    assert pair.messages == messages
    prompt = preference_row(model, pair, max_rejected_tokens=4)["prompt"]
    assert model.tokenizer(prompt, add_special_tokens=False)["input_ids"] == served
    assert "Be brief.< end_of_turn>\n\nhow do I block" in prompt
    (answer,) = generate(model, [messages], max_new_tokens=1)
    assert answer.prompt_tokens == len(served)


@pytest.fixture
def base_folder(gemma_folder: Path, tmp_path: Path) -> Path:
    """A base model: it has no template."""
    shutil.copytree(gemma_folder, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    return tmp_path / "base"


def ready(base: Path, template: str | None) -> None:
    settings = load_settings(ROOT / "configs" / "local.yaml")
    check_ready(settings.model_copy(update={"model": ModelSettings(name=str(base), chat_template=template)}))


def test_a_base_model_gets_a_template_by_the_setting(base_folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in base_folder.iterdir()}
    with pytest.raises(UserError, match=r"or give a template in model\.chat_template"):
        ready(base_folder, None)
    ready(base_folder, gemma_shaped.TEMPLATE)
    whole = load(templated(base_folder, gemma_shaped.TEMPLATE, workspace=Workspace(root=tmp_path / "state")))
    assert chat_prompts(whole.tokenizer, [conversation("user: hi")]) == [
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"
    ]
    assert {path.name: path.read_bytes() for path in base_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for m in messages %}", "can't be rendered (TemplateSyntaxError"),
        ("{{ raise_exception('never') }}", "can't be rendered (TemplateError: never"),
        ("{{ messages[0].nothing.at_all }}", "can't be rendered (UndefinedError"),
        ("{{ 1 // 0 }}", "can't be rendered (ZeroDivisionError"),
        ("{{ messages[-1].content }}<assistant>", "leaves out 'first question'"),
        (TAKES_ALL, "says nowhere that the assistant's turn begins"),
        ("", "leaves out 'first question'"),
    ],
    ids=["syntax", "refuses", "undefined", "fault", "last message", "no turn of the model", "empty"],
)
def test_a_template_that_does_not_do_is_told_before_any_work(base_folder: Path, template: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        ready(base_folder, template)
    (sentence,) = caught.value.mistakes
    assert sentence.startswith(f"model.chat_template {said}")


def test_the_configured_template_takes_the_place_of_the_models_own(gemma_folder: Path, tmp_path: Path) -> None:
    copy = templated(gemma_folder, LEAVES_OUT, workspace=Workspace(root=tmp_path))
    assert AutoTokenizer.from_pretrained(copy).chat_template == LEAVES_OUT
    assert json.loads((copy / "config.json").read_text())["model_type"] == "gemma"
