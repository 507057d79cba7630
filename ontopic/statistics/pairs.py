"""Two models on the same questions: paired comparison, and how many questions it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import brentq
from scipy.special import bdtr
from scipy.stats import binom, binomtest, norm

from ontopic.records import Verdict
from ontopic.statistics.rates import Z95, NumberOrNaN, Rate, with_interval

_MAX_PAIRS = 2**24


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
    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    low, high = _tango(wins, losses, n=n)
    return Comparison(
        difference=(wins - losses) / n, low=low, high=high, p_value=p_value, wins=wins, losses=losses, n=n
    )


def _tango(wins: int, losses: int, *, n: int) -> tuple[float, float]:
    """Tango's (1998) interval of a paired difference: the differences that the score test does not reject at 5 %."""
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


def sample_size(difference: float, discordant: float, *, power: float = 0.8) -> int:
    """How many paired questions the exact McNemar test at 5 % needs to tell a difference apart.

    Found on the test's exact power, from the approximation of Miettinen (1968) and Connor (1987) up, which is a
    little too small for the exact test.

    Args:
        difference: of the two pass rates.
        discordant: share of the questions that only one of the two passes.
        power: the probability of a p-value of at most 0.05.

    Raises:
        ValueError: the difference is 0, or greater than ``discordant``, or a share is not within 0 and 1.
    """
    difference = abs(difference)
    if not (0 < difference <= discordant <= 1 and 0 < power < 1):
        raise ValueError(f"difference {difference}, discordant {discordant}, power {power}")
    spread = math.sqrt(max(0.0, discordant - difference**2))
    guess = ((Z95 * math.sqrt(discordant) + float(norm.ppf(power)) * spread) / difference) ** 2
    low = high = max(1, math.floor(guess))
    while _power(high, difference, discordant=discordant) < power:
        if high > _MAX_PAIRS:
            raise ValueError(f"a difference of {difference} needs more than {_MAX_PAIRS} pairs")
        low, high = high, math.ceil(high * 1.1) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, difference, discordant=discordant) >= power else (middle, high)
    return high


def detectable_difference(n: int, discordant: float, *, power: float = 0.8) -> float | None:
    """The least difference that the exact McNemar test at 5 % tells apart on ``n`` paired questions.

    Returns:
        ``None`` where not even a difference of ``discordant`` would be.

    Raises:
        ValueError: a share is not within 0 and 1, or there are no questions.
    """
    if not (n > 0 and 0 < discordant <= 1 and 0 < power < 1):
        raise ValueError(f"n {n}, discordant {discordant}, power {power}")
    lacking = lambda difference: power - _power(n, difference, discordant=discordant)  # noqa: E731
    return float(brentq(lacking, 0.0, discordant, xtol=1e-6)) if lacking(discordant) <= 0 else None


def _power(n: int, difference: float, *, discordant: float) -> float:
    """Exact power of the exact McNemar test at 5 %: over the number of discordant pairs, then of wins among them."""
    span = binom.ppf((1e-9, 1 - 1e-9), n, discordant)
    pairs = np.arange(int(span[0]), int(span[1]) + 1)
    # The greatest number of losses (or wins) with a p-value of at most 0.05; -1 where there is none.
    fewest = binom.ppf(0.025, pairs, 0.5)
    fewest = np.where(2 * bdtr(fewest, pairs, 0.5) <= 0.05, fewest, fewest - 1)
    win = 0.5 + difference / discordant / 2
    rejects = binom.cdf(fewest, pairs, win) + binom.cdf(fewest, pairs, 1 - win)
    return float(np.sum(binom.pmf(pairs, n, discordant) * rejects))
