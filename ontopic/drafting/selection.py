"""Which of the questions that were written are kept: no two nearly the same, as many of each intent as can be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ontopic.data.labelled import Question
from ontopic.data.same_question import near_duplicates
from ontopic.data.splits import QUESTION_SHARES, with_splits
from ontopic.data.synthetic import MarkedQuestion


def chosen_questions(
    written: Sequence[MarkedQuestion], *, own: Sequence[MarkedQuestion], n: int
) -> list[MarkedQuestion]:
    """The person's own questions, and so many of the written ones that there are ``n``, half of them in scope.

    A written question that is nearly the same as an own one, or as one before it, is left out, whatever its scope.
    The others of a scope are taken from its intents in turn.

    Returns:
        Each with its split, which is drawn where a row has none.
    """
    different = without_near_duplicates(written, beside=own)
    kept = list(own)
    for in_scope in (True, False):
        have = sum(question.in_scope is in_scope for question in own)
        kept += in_turn([q for q in different if q.in_scope is in_scope], max(0, (n + in_scope) // 2 - have))
    return with_splits(kept, QUESTION_SHARES, source=None)


def without_near_duplicates(questions: Sequence[MarkedQuestion], *, beside: Sequence[Question]) -> list[MarkedQuestion]:
    """Those that are not nearly the same as one of ``beside``, or as an earlier one that was kept."""
    texts = [question.question for question in questions]
    gone = {i for i, _ in near_duplicates(texts, [question.question for question in beside])}
    alike: dict[int, set[int]] = defaultdict(set)
    for i, j in near_duplicates(texts, texts):
        if j < i:
            alike[i].add(j)
    for i in range(len(texts)):
        if alike[i] - gone:
            gone.add(i)
    return [question for i, question in enumerate(questions) if i not in gone]


def in_turn(questions: Sequence[MarkedQuestion], n: int) -> list[MarkedQuestion]:
    """At most ``n`` of them, from their intents in turn."""
    by_intent: dict[str, list[MarkedQuestion]] = defaultdict(list)
    for question in questions:
        by_intent[question.intent].append(question)
    longest = max(map(len, by_intent.values()), default=0)
    rounds = [group[turn] for turn in range(longest) for group in by_intent.values() if turn < len(group)]
    return rounds[:n]
