"""Conversations as the text that a model continues, by its chat template; and a template for a model that has none."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ontopic.errors import UserError
from ontopic.models.control_markers import control_markers, neutralised
from ontopic.state.whole_file import whole_folder
from ontopic.state.workspace import Workspace

_BEGINNINGS = {"system": "", "tool": "Result of a tool:\n"}
# A conversation with each role in a place where templates expect it.
_WITH = {
    "system": [{"role": "system", "content": "a rule"}, {"role": "user", "content": "question"}],
    "tool": [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": "call"},
        {"role": "tool", "content": "result"},
    ],
}
_PROBE = [
    {"role": "user", "content": "first question"},
    {"role": "assistant", "content": "first answer"},
    {"role": "user", "content": "second question"},
]


def chat_prompts(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    """The text that the model continues, for each conversation of OpenAI-style messages.

    The model's control tokens in the messages become plain text. Where the template has no role ``system`` or ``tool``,
    such messages are put into the user's turns: training, evaluation and serving all come through here, so that a model
    is asked as it was taught.

    Raises:
        jinja2.TemplateError: the template refuses a conversation in any of these forms.
    """
    markers = control_markers(tokenizer)
    return [_prompt(tokenizer, neutralised(messages, markers)) for messages in conversations]


def _prompt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    given = {role: [m["content"].strip() for m in messages if m["role"] == role] for role in _BEGINNINGS}
    here = frozenset(role for role in given if given[role])
    lacking = _lacking(tokenizer, str(tokenizer.chat_template)) & here
    refused: TemplateError | None = None
    prompt = ""
    # Some templates take a role in some places only, so the others are tried too where that fails.
    for roles in dict.fromkeys((lacking, lacking | (here & {"tool"}), here)):
        try:
            prompt = _rendered(tokenizer, _in_users_turns(messages, roles))
        except TemplateError as error:
            refused = error
        else:
            if all(text in prompt for texts in given.values() for text in texts):
                return prompt
    if refused and not prompt:
        raise refused
    return prompt


@lru_cache(maxsize=8)
def _lacking(tokenizer: PreTrainedTokenizerBase, _: str) -> frozenset[str]:
    """The roles that a tokenizer's template (its text is a part of the cache's key) refuses, or leaves out."""
    lacking = set()
    for role, messages in _WITH.items():
        try:
            shown = all(message["content"] in _rendered(tokenizer, messages) for message in messages)
        except TemplateError:
            shown = False
        if not shown:
            lacking.add(role)
    return frozenset(lacking)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _in_users_turns(messages: list[dict[str, str]], roles: frozenset[str]) -> list[dict[str, str]]:
    """Messages with what these roles say in the user's words; some templates take no two turns of one role in a row."""
    if not roles:
        return messages
    joined: list[dict[str, str]] = []
    for message in messages:
        if message["role"] in roles:
            message = {"role": "user", "content": f"{_BEGINNINGS[message['role']]}{message['content']}"}
        if joined and joined[-1]["role"] == message["role"] == "user":
            joined[-1] = joined[-1] | {"content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined


def check_template(tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Make sure that a tokenizer's template shows who says what, and lets the model answer.

    Args:
        where: the template is given, for the message.

    Raises:
        UserError: it does not.
    """
    try:
        prompt, all_of = _rendered(tokenizer, _PROBE), _rendered(tokenizer, _PROBE[:2])
    except Exception as error:  # whatever a template can do wrong, Jinja and what it calls raise as types of their own
        raise UserError(
            f"{where} can't be rendered ({type(error).__name__}: {str(error).partition(chr(10))[0]}); mend the template"
        ) from error
    missing = [message["content"] for message in _PROBE if message["content"] not in prompt]
    if missing or prompt.endswith(_PROBE[-1]["content"]) or all_of == prompt:
        what = f"leaves out {missing[0]!r}" if missing else "says nowhere that the assistant's turn begins"
        raise UserError(f"{where} {what}; give one that shows each message and heeds add_generation_prompt")


def templated(folder: Path, template: str, *, workspace: Workspace) -> Path:
    """A copy of the model in ``folder`` that has this chat template, in the state folder.

    Args:
        template: in Jinja.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    copy = workspace.models / f"{folder.name}-templated"
    with whole_folder(copy) as part:
        for file in folder.iterdir():
            if file.is_file():
                shutil.copyfile(file, part / file.name)
        tokenizer.save_pretrained(part)
    return copy
