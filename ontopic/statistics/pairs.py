"""Two models on the same questions: the paired comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict

from ontopic.records import Verdict
from ontopic.statistics.rates import Z95, NumberOrNaN, Rate, with_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Count = TypeVar("Count", float, NDArray[np.float64])


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

    def rate_at(self, alpha: float) -> Rate:
        """The difference with its interval at ``1 - alpha``, of which each end is off in ``alpha / 2`` of all cases.

        Raises:
            ValueError: ``alpha`` is not within 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha {alpha}")
        if self.n == 0:
            return self.rate
        low, high = _tango(self.wins, self.losses, n=self.n, z=NormalDist().inv_cdf(1 - alpha / 2))
        return Rate(value=self.difference, low=low, high=high, n=self.n)

    @property
    def discordant(self) -> float:
        """The share of pairs in which only one of the two passed; ``nan`` without a pair."""
        return (self.wins + self.losses) / self.n if self.n else math.nan

    @property
    def note(self) -> str:
        """What is behind the difference, as it follows n in a sentence."""
        return f" pairs; {self.wins:,} wins, {self.losses:,} losses, McNemar p = {self.p_value:.3g}"


def compare(champion: Sequence[Verdict], challenger: Sequence[Verdict]) -> Comparison:
    """Paired comparison of two models' verdicts on the same questions, in the same order.

    A pair with an unjudged side is left out; ``counted_as`` makes verdicts of which none is. The p-value is the exact
    McNemar test; the interval is Tango's (1998) score interval, which covers 93 to 97 % wherever four or more
    discordant pairs are expected, and never less.

    Raises:
        ValueError: the two are not equally long.
    """
    _check_paired(champion, challenger)
    pairs = [
        (a.outcome == "pass", b.outcome == "pass")
        for a, b in zip(champion, challenger, strict=True)
        if "unjudged" not in (a.outcome, b.outcome)
    ]
    return _compared(pairs)


def compare_unjudged(champion: Sequence[Verdict], challenger: Sequence[Verdict]) -> Comparison:
    """As ``compare``, of the shares that are unjudged: a win is a question on which only the challenger is.

    Raises:
        ValueError: the two are not equally long.
    """
    _check_paired(champion, challenger)
    return _compared(
        [(a.outcome == "unjudged", b.outcome == "unjudged") for a, b in zip(champion, challenger, strict=True)]
    )


def _check_paired(champion: Sequence[Verdict], challenger: Sequence[Verdict]) -> None:
    if len(champion) != len(challenger):
        raise ValueError(f"{len(champion)} champion verdicts, {len(challenger)} challenger verdicts")


def _compared(pairs: Sequence[tuple[bool, bool]]) -> Comparison:
    n = len(pairs)
    wins = sum(b and not a for a, b in pairs)
    losses = sum(a and not b for a, b in pairs)
    if n == 0:
        return Comparison(difference=math.nan, low=-1.0, high=1.0, p_value=1.0, wins=0, losses=0, n=0)
    from scipy.stats import binomtest  # half a second, which who only reads comparisons need not wait

    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    low, high = _tango(wins, losses, n=n, z=Z95)
    return Comparison(
        difference=(wins - losses) / n, low=low, high=high, p_value=p_value, wins=wins, losses=losses, n=n
    )


def standard_error(wins: Count, losses: Count, *, n: int, difference: float) -> Count:
    """Of the difference of two shares on ``n`` pairs, were this its true value, with the likeliest share of losses.

    Tango's score test rejects the difference where the estimate is further from it than so many of these.
    """
    linear = (2 * n - wins + losses) * difference - wins - losses
    constant = losses * difference * (1 - difference)
    # Neither is negative but for rounding.
    share = (abs(linear**2 + 8 * n * constant) ** 0.5 - linear) / (4 * n)
    error: Count = (abs(2 * share + difference * (1 - difference)) / n) ** 0.5
    return error


def _tango(wins: int, losses: int, *, n: int, z: float) -> tuple[float, float]:
    """Tango's (1998) interval of a paired difference: the differences that the score test does not reject at ``z``."""
    from scipy.optimize import brentq

    estimate = (wins - losses) / n

    def excess(difference: float) -> float:
        return abs(estimate - difference) - z * standard_error(wins, losses, n=n, difference=difference)

    # Just beside the estimate, where the excess can be exactly 0 without being an end of the interval.
    low = -1.0 if estimate == -1 else float(brentq(excess, -1.0, estimate - 1e-9))
    high = 1.0 if estimate == 1 else float(brentq(excess, estimate + 1e-9, 1.0))
    return low, high
