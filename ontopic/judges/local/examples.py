"""What the embedded judge learns from: the texts of labelled questions and records, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord, Question
from ontopic.data.language import is_english
from ontopic.judges.local.conversation import last_turns, turns_before
from ontopic.judges.local.visible_text import visible

# What is learned, and what its examples are called.
PARTS = (
    ("which questions are in scope", "in scope", "out of scope"),
    ("which answers decline", "that decline", "that do not"),
    ("which answers are on the subject", "on the subject", "off it"),
)
# The kind of records that teach the fourth part, and the intent whose references are near to them; neither is a must.
_INVENTED, _OF_ACCOUNT = "invented_account_data", "account_specific"
FOLDS = 5
"""The fewest examples of each class of a part."""
_MOST_REFERENCES = 1000

# Of each of the four parts.
Known = tuple[bool | None, bool | None, bool | None, bool | None]


class Example(NamedTuple):
    """A text, what is known of it, and the turns before it."""

    text: str
    known: Known
    context: tuple[str, ...] = ()


def labelled_examples(
    policy: Policy, questions: Sequence[Question], *, records: Sequence[LabelledRecord]
) -> list[Example]:
    """The examples that questions and records of the training split give, those in conversations too."""
    # What a text speaks of is learned on questions too, which are far more varied than the answers; and as no question
    # declines, those out of scope stand for the many answers that do not.
    rows = [
        Example(q.question, (q.in_scope, None if q.in_scope else False, q.in_scope, None), last_turns(q.history))
        for q in questions
    ]
    rows += [
        Example(r.question, (r.in_scope, None, r.in_scope, None), turns_before(r.messages))
        for r in records
        if r.in_scope is not None
    ]
    answered = [q for q in questions if q.in_scope and q.reference]
    usual = [q for q in answered if q.intent != _OF_ACCOUNT]
    step = -(-len(usual) // _MOST_REFERENCES) or 1  # they are much alike, and long
    chosen = [*usual[::step], *(q for q in answered if q.intent == _OF_ACCOUNT)]
    rows += [Example(str(q.reference), (None, False, True, False)) for q in chosen]
    rows += [Example(policy.refusal, (None, True, None, None))] * FOLDS
    rows += [Example(r.answer, (None, _declines(r), _on_subject(r), _invents(r))) for r in records if r.answer.strip()]
    return as_read(rows)


def as_read(rows: Sequence[Example]) -> list[Example]:
    """The examples as their reader sees them, without those of which nothing is known."""
    return [
        # What a question in a conversation speaks of is in what it follows, and an answer is read alone.
        Example(visible(text), (known[0], None, None, None) if context else known, context)
        for text, known, context in rows
        if known != (None,) * 4
    ]


def in_english(examples: Sequence[Example]) -> list[Example]:
    """The English ones; all of them where there is none, as of a policy without English texts."""
    return [each for each in examples if is_english(each.text)] or list(examples)


def too_few_examples(policy: Policy, examples: Sequence[Example]) -> list[str]:
    """A sentence for each part that cannot be learned, as it has too few examples of one of its classes.

    Args:
        examples: as ``in_english`` leaves them.
    """
    lacking = []
    for part, (name, yes, no) in enumerate(PARTS):
        labels = [each.known[part] for each in examples if each.known[part] is not None and not each.context]
        if min(labels.count(True), labels.count(False)) < FOLDS:
            lacking.append(
                f"the judge cannot learn {name}: policy {policy.name!r} has {labels.count(True)} examples {yes} and "
                f"{labels.count(False)} {no}, and needs {FOLDS} of each"
            )
    return lacking


def _declines(record: LabelledRecord) -> bool | None:
    """Whether the answer declines, as far as the record's labels say."""
    if record.in_scope is False:
        return record.label == "pass"
    if record.kind == "over_refusal":
        return True
    return False if record.label == "pass" or record.kind in ("off_topic_answer", _INVENTED) else None


def _on_subject(record: LabelledRecord) -> bool | None:
    """Whether the answer speaks of the subject, as far as the record's labels say."""
    if record.in_scope and record.label == "pass":
        return True
    if record.kind == "judge_attack" and record.label == "fail":
        return False
    return False if record.kind in ("off_topic_answer", "leak", "comply_after_refusal") else None


def _invents(record: LabelledRecord) -> bool | None:
    """Whether the answer makes up account data, as far as the record's labels say."""
    if record.in_scope and record.kind == _INVENTED:
        return True
    return False if record.in_scope and record.label == "pass" else None
