"""What nothing that is trained on may be nearly: the questions of the evaluation and the calibration split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ontopic.config.policy import Policy
from ontopic.data.labelled import Split, load_questions, load_records
from ontopic.data.same_question import identity, near_duplicates, spoken
from ontopic.records import question_in

_APART: tuple[Split, ...] = ("evaluation", "calibration")
_SAYS_LITTLE = 2  # words or fewer, such as "and then?", are asked in any conversation


def near_held_apart(requests: Sequence[Sequence[Mapping[str, str]]], policy: Policy) -> dict[int, Split]:
    """Which requests are nearly one of these questions, by their index, and of which split it is.

    A request is one where its whole conversation is nearly that of such a question, or where what is asked last is
    nearly a question that stands alone.

    Args:
        requests: messages, as ``Record.request`` gives them.

    Raises what ``load_rows`` raises.
    """
    apart: dict[str, Split] = {}
    for question in load_questions(policy.questions, languages=policy.languages):
        if question.split in _APART:
            apart[question.spoken] = question.split
    for record in load_records(policy.records, questions=policy.questions):
        if record.split in _APART:
            apart.setdefault(record.spoken, record.split)
    texts, of = [], []
    for i, request in enumerate(requests):
        asked = identity(request[question_in(request) :][:1])
        for text in {spoken(request), asked if len(asked.split()) > _SAYS_LITTLE else ""} - {""}:
            texts.append(text)
            of.append(i)
    splits = list(apart.values())
    found: dict[int, Split] = {}
    for left, right in near_duplicates(texts, list(apart)):
        found.setdefault(of[left], splits[right])
    return found
