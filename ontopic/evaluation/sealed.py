"""The sealed questions' say: the last test before a promotion, on questions that no look has drawn."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.evaluation.gate import Decision, GateTest
from ontopic.records import Verdict
from ontopic.statistics.limits import hold
from ontopic.statistics.pairs import compare

SEALED = "Sealed questions, challenger minus champion"
MARGIN = 0.05
"""Some 200 questions can't confirm a gain of 2 points. They can contradict one: whoever is this much worse on them than
the improvement that is asked for has learned the other questions, not the task."""


def with_sealed(
    decision: Decision, *, champion: Sequence[Verdict], challenger: Sequence[Verdict], opening: int, alpha: float
) -> Decision:
    """The decision with one more test: that the sealed questions do not contradict it (non-inferiority).

    Args:
        champion, challenger: the verdicts on the sealed questions, in the same order. What is unjudged counts against
            the challenger.
        opening: of the sealed set against this champion, from 1.
        alpha: two-sided level of the interval.

    Raises:
        ValueError: the two are not equally long.
    """
    worst = [_failed(verdict) if verdict.outcome == "unjudged" else verdict for verdict in challenger]
    lenient = [_passed(verdict) if verdict.outcome == "unjudged" else verdict for verdict in champion]
    compared = compare(lenient, worst)
    limit = decision.limits.improvement - MARGIN
    note = f"{compared.note}; opening {opening}"
    held = hold(SEALED, compared.rate_at(alpha), bound="low", relation="above", limit=limit, note=note, alpha=alpha)
    test = GateTest(name=held.name, passed=held.passed, description=f"{SEALED}: {held.description}")
    return decision.model_copy(
        update={"tests": [*decision.tests, test], "passed": decision.passed and test.passed, "sealed": compared}
    )


def _failed(verdict: Verdict) -> Verdict:
    return verdict.model_copy(update={"outcome": "fail", "score": 0.0})


def _passed(verdict: Verdict) -> Verdict:
    return verdict.model_copy(update={"outcome": "pass", "score": 1.0})
