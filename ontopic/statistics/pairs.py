"""Two models on the same questions: the paired comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.records import Verdict
from ontopic.statistics.rates import Z95, NumberOrNaN, Rate, with_interval


class Comparison(BaseModel):
    """Champion and challenger on the same questions.

    Attributes:
        difference: challenger's pass rate minus the champion's, in [-1, 1].
        low, high: bounds of its 95 % interval.
        p_value: exact two-sided McNemar test.
        wins, losses: questions that only the challenger, only the champion passed.
        n: pairs in which both were judged.
    """

    model_config = ConfigDict(frozen=True)
    difference: NumberOrNaN
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    n: int

    @property
    def with_interval(self) -> str:
        """``difference [low, high]``, with signs."""
        return with_interval(self.difference, self.low, high=self.high, signed=True)

    @property
    def rate(self) -> Rate:
        """The difference with its interval, on ``n`` pairs."""
        return Rate(value=self.difference, low=self.low, high=self.high, n=self.n)

    @property
    def note(self) -> str:
        """What is behind the difference, as it follows n in a sentence."""
        return f" pairs; {self.wins:,} wins, {self.losses:,} losses, McNemar p = {self.p_value:.3g}"


def compare(champion: Sequence[Verdict], challenger: Sequence[Verdict]) -> Comparison:
    """Paired comparison of two models' verdicts on the same questions, in the same order.

    The p-value is the exact McNemar test; the interval is Tango's (1998) score interval, which covers 93 to 97 %
    wherever four or more discordant pairs are expected, and never less.

    Raises:
        ValueError: the two are not equally long.
    """
    if len(champion) != len(challenger):
        raise ValueError(f"{len(champion)} champion verdicts, {len(challenger)} challenger verdicts")
    pairs = [
        (a.outcome == "pass", b.outcome == "pass")
        for a, b in zip(champion, challenger, strict=True)
        if "unjudged" not in (a.outcome, b.outcome)
    ]
    n = len(pairs)
    wins = sum(b and not a for a, b in pairs)
    losses = sum(a and not b for a, b in pairs)
    if n == 0:
        return Comparison(difference=math.nan, low=-1.0, high=1.0, p_value=1.0, wins=0, losses=0, n=0)
    from scipy.stats import binomtest  # half a second, which who only reads comparisons need not wait

    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    low, high = _tango(wins, losses, n=n)
    return Comparison(
        difference=(wins - losses) / n, low=low, high=high, p_value=p_value, wins=wins, losses=losses, n=n
    )


def _tango(wins: int, losses: int, *, n: int) -> tuple[float, float]:
    """Tango's (1998) interval of a paired difference: the differences that the score test does not reject at 5 %."""
    from scipy.optimize import brentq

    estimate = (wins - losses) / n

    def excess(difference: float) -> float:
        """How much further from the estimate than 1.96 standard errors, for the likeliest share of losses."""
        linear = (2 * n - wins + losses) * difference - wins - losses
        constant = losses * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 + 8 * n * constant)) - linear) / (4 * n)
        variance = max(0.0, 2 * share + difference * (1 - difference)) / n
        return abs(estimate - difference) - Z95 * math.sqrt(variance)

    # Just beside the estimate, where the excess can be exactly 0 without being an end of the interval.
    low = -1.0 if estimate == -1 else float(brentq(excess, -1.0, estimate - 1e-9))
    high = 1.0 if estimate == 1 else float(brentq(excess, estimate + 1e-9, 1.0))
    return low, high
