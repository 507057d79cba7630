"""The sealed questions' say: the last test before a promotion, on questions that no look has drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ontopic.evaluation.gate import Decision, held_test
from ontopic.records import Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import counted_as

SEALED = "Sealed questions, improvement on them minus that on the drawn ones"


def with_sealed(
    decision: Decision, *, champion: Sequence[Verdict], challenger: Sequence[Verdict], opening: int
) -> Decision:
    """The decision with one more test: that the sealed questions do not contradict it.

    Some 200 questions can't confirm a gain of two points. They can contradict one: where it is not found again there,
    beyond chance, the challenger has learned the drawn questions and not the task. An opening can only refuse, so it
    spends no alpha.

    Args:
        champion, challenger: the verdicts on the sealed questions, in the same order. What is unjudged counts against
            the challenger.
        opening: of the sealed set against this champion, from 1.

    Raises:
        ValueError: the two are not equally long.
    """
    found = compare(
        counted_as("pass", champion, in_scope=[verdict.in_scope for verdict in champion]),
        counted_as("fail", challenger, in_scope=[verdict.in_scope for verdict in challenger]),
    )
    lost = _minus(found.rate, decision.comparison.rate)
    note = f"{found.note}, {found.with_interval} there; opening {opening}"
    test = held_test(SEALED, lost, bound="high", relation="at least", limit=0.0, note=note)
    tests, passed = [*decision.tests, test], decision.passed and test.passed
    return decision.model_copy(update={"tests": tests, "passed": passed, "sealed": found})


def _minus(left: Rate, right: Rate) -> Rate:
    """The difference of two independent estimates, with its interval by MOVER (Zou and Donner 2008)."""
    value = left.value - right.value
    below = math.hypot(left.value - left.low, right.high - right.value)
    above = math.hypot(left.high - left.value, right.value - right.low)
    return Rate(value=value, low=value - below, high=value + above, n=left.n)
