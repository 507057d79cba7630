"""How many questions a paired comparison takes: for who plans a test set, before the gate reads it."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr
from scipy.stats import binom, norm

from ontopic.statistics.rates import Z95

_MAX_PAIRS = 2**24


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


def questions_for_limit(share: float, limit: float, *, power: float = 0.8) -> int | None:
    """How many questions the bound of a share's Wilson interval needs to be on the right side of a limit.

    The bound is the one between share and limit. Wilson's interval holds what the score test does not reject, so this
    is that test's usual sample size.

    Args:
        share: the true one.
        power: the probability that the bound is within the limit.

    Returns:
        ``None`` where no number is enough: the share is the limit itself, or the limit is 0 or 1.

    Raises:
        ValueError: a share is not within 0 and 1.
    """
    if not (0 <= share <= 1 and 0 <= limit <= 1 and 0 < power < 1):
        raise ValueError(f"share {share}, limit {limit}, power {power}")
    if share == limit or limit in (0, 1):
        return None
    spread = Z95 * math.sqrt(limit * (1 - limit)) + float(norm.ppf(power)) * math.sqrt(share * (1 - share))
    return math.ceil((spread / (share - limit)) ** 2)


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
