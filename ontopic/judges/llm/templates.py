"""Judge prompts: text files with ``{{placeholders}}``, one kind for each kind of grading."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.records import Record, transcript
from ontopic.state.carried_files import here

Grading = Literal["single", "custom", "pairwise", "reference"]

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_POLICY = {"subject", "definition", "inside", "outside", "passes", "fails", "examples"}
# The answers that a prompt must show, by kind of grading.
_ANSWERS: dict[Grading, set[str]] = {
    "single": {"answer"},
    "custom": {"answer"},
    "pairwise": {"answer_a", "answer_b"},
    "reference": {"answer", "reference"},
}
_ASKED = {"conversation", "question"}  # one of them is enough


@dataclass(frozen=True)
class Template:
    """A judge prompt that was checked for its kind of grading.

    Attributes:
        name: the file's name without its suffix.
        digest: sha256 (hex) of kind and text.
    """

    name: str
    grading: Grading
    text: str
    digest: str

    @property
    def placeholders(self) -> list[str]:
        """The names in double braces, in their order."""
        return _PLACEHOLDER.findall(self.text)

    def render(self, policy_values: Mapping[str, str], untrusted: Mapping[str, str]) -> str:
        """The prompt for one record.

        Placeholders are filled in one pass, so that one inside a value stays plain text. Each call draws a new fence
        of 64 random bits; a text that was written before cannot hold it, in whatever characters.
        """
        return self.filled({**policy_values, **untrusted}, fence=secrets.token_hex(8))

    def filled(self, values: Mapping[str, str], *, fence: str) -> str:
        """The prompt with these values, by placeholder, and a fence."""
        return _PLACEHOLDER.sub(lambda match: fence if match.group(1) == "fence" else values[match.group(1)], self.text)

    def asked(self, record: Record) -> dict[str, str]:
        """What a record's answer follows, by placeholder.

        A prompt that does not name the conversation shows it in the question's place, where there is more than that.
        """
        conversation = transcript(record.request)
        alone = "conversation" in self.placeholders or not record.messages
        return {"conversation": conversation, "question": record.question if alone else f"\n{conversation}"}


def load_template(path: Path, grading: Grading) -> Template:
    """Read a judge prompt.

    A prompt may name ``{{fence}}``, the policy's ``subject``, ``definition``, ``inside``, ``outside``, ``passes``,
    ``fails`` and ``examples``, and the texts of its kind of grading: ``conversation`` or ``question``, and ``answer``;
    for ``pairwise`` ``answer_a`` and ``answer_b``, for ``reference`` also ``reference``. It must name the fence and
    these texts, but for ``custom``, where ``answer`` is enough.

    Raises:
        UserError: the file is missing, names an unknown placeholder, lacks one, or has a text outside the fence.
    """
    try:
        text = here(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the judge prompt cannot be read ({error})") from error
    answers = _ANSWERS[grading]
    untrusted = answers | _ASKED  # a stranger wrote it: it must stand between two fences
    known = untrusted | _POLICY | {"fence"}
    named = _PLACEHOLDER.findall(text)
    asks = grading == "custom" or not _ASKED.isdisjoint(named)
    required = answers | {"fence"} | (set() if asks else {"conversation"})
    if unknown := sorted(set(named) - known):
        raise UserError(
            f"{path}: unknown placeholder {unknown[0]!r}; the valid ones for {grading} grading are "
            f"{', '.join(sorted(known))}"
        )
    if lacking := sorted(required - set(named)):
        raise UserError(f"{path}: the placeholder {{{{{lacking[0]}}}}} is missing; add it")
    first, last = named.index("fence"), len(named) - 1 - named[::-1].index("fence")
    for position, name in enumerate(named):
        if name in untrusted and not first < position < last:
            raise UserError(f"{path}: {{{{{name}}}}} stands outside the fence; put {{{{fence}}}} before and after it")
    return Template(path.stem, grading, text, hashlib.sha256(f"{grading}\n{text}".encode()).hexdigest())


def policy_values(policy: Policy) -> dict[str, str]:
    """What the policy fills in, by placeholder."""

    def listed(items: Sequence[str]) -> str:
        return "\n".join(f"- {item}" for item in items)

    outside = list(policy.border.out_of_scope)
    if policy.languages:
        only = ", ".join(policy.languages)
        outside.append(f"whatever is asked in a language other than {only} (ISO 639-1), {policy.subject} included")
    examples = [
        json.dumps({"question": e.question, "answer": e.answer, "verdict": e.verdict, "explanation": e.why})
        for e in policy.examples
    ]
    return {
        "subject": policy.subject,
        "definition": policy.definition,
        "inside": listed(policy.border.in_scope),
        "outside": listed(outside),
        "passes": listed(policy.rubric.passes),
        "fails": listed(policy.rubric.fails),
        "examples": "\n".join(examples),
    }
