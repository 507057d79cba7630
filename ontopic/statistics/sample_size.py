"""How many questions the gate takes, and what difference it finds with those it has."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

from ontopic.statistics.pairs import standard_error
from ontopic.statistics.rates import Z95

_MAX_PAIRS = 2**24


def sample_size(
    difference: float, discordant: float, *, limit: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """How many paired questions the gate needs to find a challenger better by so much.

    Found on the exact power of the gate's own test: the lower bound of Tango's interval at ``1 - alpha`` is above the
    limit.

    Args:
        difference: of the two true pass rates, challenger minus champion.
        discordant: share of the questions that only one of the two passes.
        limit: what the lower bound must exceed.
        power: the probability that it does.

    Returns:
        ``None`` where it takes more than 2^24.

    Raises:
        ValueError: the difference is not above the limit, or greater than ``discordant``; or a share is not within 0
            and 1.
    """
    if not (-1 <= limit < difference <= discordant <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"difference {difference}, discordant {discordant}, limit {limit}, alpha {alpha}")

    def found(n: int) -> float:
        return gate_power(n, difference, discordant=discordant, limit=limit, alpha=alpha)

    low, high = 1, 2
    while found(high) < power:
        if high > _MAX_PAIRS:
            return None
        low, high = high, math.ceil(high * 1.1) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


def detectable_difference(
    n: int, discordant: float, *, limit: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """The least true difference that the gate finds on ``n`` paired questions; the arguments as in ``sample_size``.

    Returns:
        ``None`` where not even the greatest would be: all discordant pairs won.

    Raises:
        ValueError: a share is not within 0 and 1, or there are no questions.
    """
    if not (n > 0 and 0 <= discordant <= 1 and 0 < alpha < 1 and 0 < power < 1):
        raise ValueError(f"n {n}, discordant {discordant}, alpha {alpha}, power {power}")

    def lacking(difference: float) -> float:
        return power - gate_power(n, difference, discordant=discordant, limit=limit, alpha=alpha)

    if discordant == 0 or discordant <= limit or lacking(discordant) > 0:
        return None
    least = max(limit, -discordant)
    return float(brentq(lacking, least, discordant, xtol=1e-6)) if lacking(least) > 0 else least


def gate_power(n: int, difference: float, *, discordant: float, limit: float = 0.0, alpha: float = 0.05) -> float:
    """The exact probability that the lower bound of Tango's interval at ``1 - alpha`` is above the limit.

    Over the number of discordant pairs, then of wins among them; the arguments as in ``sample_size``.
    """
    span = binom.ppf((1e-9, 1 - 1e-9), n, discordant)
    pairs = np.arange(int(span[0]), int(span[1]) + 1, dtype=float)
    fewest = _fewest_wins(pairs, n=n, limit=limit, z=float(norm.ppf(1 - alpha / 2)))
    win = min(1.0, (1 + difference / discordant) / 2)
    return float(np.sum(binom.pmf(pairs, n, discordant) * binom.sf(fewest - 1, pairs, win)))


def _fewest_wins(pairs: NDArray[np.float64], *, n: int, limit: float, z: float) -> NDArray[np.float64]:
    """With how many wins among so many discordant pairs the lower bound is above the limit; one more where with none.

    By bisection, as more wins among as many pairs never lower the bound.
    """
    none, all_that = np.full_like(pairs, -1), pairs + 1
    while np.any(all_that - none > 1):
        wins = np.floor((none + all_that) / 2)
        losses = pairs - wins
        distance = (wins - losses) / n - limit
        above = distance > z * standard_error(wins, losses, n=n, difference=limit)
        none, all_that = np.where(above, none, wins), np.where(above, wins, all_that)
    return all_that


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
