"""Verdicts and comparisons that several test files make."""

from __future__ import annotations

from ontopic.records import Outcome, Verdict
from ontopic.statistics.pairs import Comparison, compare


def verdict(outcome: Outcome, in_scope: bool | None = None, declined: bool | None = None) -> Verdict:
    return Verdict(outcome=outcome, score=None, explanation="", judge_id="judge", in_scope=in_scope, declined=declined)


def verdicts(word: str) -> list[Verdict]:
    """One verdict a letter: p(ass), f(ail), u(njudged)."""
    outcomes: dict[str, Outcome] = {"p": "pass", "f": "fail", "u": "unjudged"}
    return [verdict(outcomes[letter]) for letter in word]


def compared(wins: int, losses: int, n: int) -> Comparison:
    both = "p" * (n - wins - losses)
    return compare(verdicts("f" * wins + "p" * losses + both), verdicts("p" * wins + "f" * losses + both))
