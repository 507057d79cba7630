"""The judge's own error taken out of a guardrail score."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Z95, Rate

_MAX_LABELS = 2**20

Floats = NDArray[np.float64]
_Counts = tuple[ArrayLike, ArrayLike]


class Errors(Protocol):
    """How a judge errs: the shares of good records that it passes and of bad ones that it fails."""

    @property
    def sensitivity(self) -> Rate: ...
    @property
    def specificity(self) -> Rate: ...


def raw_share(truth: float, card: Errors | None) -> float:
    """The share of records that a judge passes where ``truth`` of them, in [0, 1], are good.

    Args:
        card: of the judge on labelled traffic; where there is none, its errors are not known and taken to be none.
    """
    if card is None or not card.sensitivity.n or not card.specificity.n:
        return truth
    return truth * card.sensitivity.value + (1 - truth) * (1 - card.specificity.value)


def corrected(raw: Rate, sensitivity: Rate, *, specificity: Rate) -> Rate:
    """Guardrail score with the judge's own error taken out, and an interval that counts both uncertainties.

    The value is the Rogan-Gladen estimate, as in Lee et al., "How to Correctly Report LLM-as-a-Judge Evaluations"
    (arXiv 2511.21140). The interval holds every true rate that ``compatible`` does not reject. Their own interval (of
    Lang and Reiczigel 2014) covers up to 99.9 %; docs/statistics.md compares the two.

    Coverage is 93 to 97 % wherever at least three failing verdicts are expected, among the records and among the
    records labelled pass. With fewer (a sensitivity of 0.99 on 50 labels, say) the counts take so few values that
    coverage jumps, between 92 and 99.5 %. It was measured for true rates of 0.5 to 0.98, sensitivity and specificity of
    0.7 to 0.99, 50 to 1,000 records and 50 to 500 labels of each kind.

    Args:
        raw: share of records that the judge passes.
        sensitivity: share of good records that the judge passes, on labelled records.
        specificity: share of bad records that the judge fails, on labelled records.

    Returns:
        The corrected rate clipped to [0, 1]. Where the judge is no better than chance, nothing is known: the raw
        value with the interval [0, 1].
    """
    if raw.n == 0 or sensitivity.n == 0 or specificity.n == 0:
        return Rate(value=raw.value, low=0.0, high=1.0, n=raw.n)
    youden = sensitivity.value + specificity.value - 1
    if youden <= 0:
        return Rate(value=raw.value, low=0.0, high=1.0, n=raw.n)
    value = min(1.0, max(0.0, (raw.value + specificity.value - 1) / youden))
    # The estimate itself is always compatible. Look for each end of the interval on a grid from 0 or 1 to the
    # estimate, then on a finer grid in the cell where it was found.
    steps = np.linspace(0.0, 1.0, 65)
    out, inside = np.array([0.0, 1.0]), np.array([value, value])
    for _ in range(4):
        grid = out[:, None] + steps * (inside - out)[:, None]
        kept = compatible(
            grid,
            (raw.value * raw.n, raw.n),
            sensitivity=(sensitivity.value * sensitivity.n, sensitivity.n),
            specificity=(specificity.value * specificity.n, specificity.n),
        )
        kept[:, -1] = True
        first = kept.argmax(axis=1)
        inside, out = grid[[0, 1], first], grid[[0, 1], np.maximum(first - 1, 0)]
    return Rate(value=value, low=float(inside[0]), high=float(inside[1]), n=raw.n)


def compatible(truth: ArrayLike, passed: _Counts, *, sensitivity: _Counts, specificity: _Counts) -> NDArray[np.bool_]:
    """Whether true rates are compatible, at the 5 % level, with what a judge said and with what is known of the judge.

    A score test of three binomials (records, labelled passes, labelled fails), with the sensitivity and specificity
    that are the likeliest at each true rate, as Miettinen and Nurminen (1985) do for two binomials. Towards 0 and 1 the
    critical values are those of Feldman and Cousins (1998) for a bounded mean: the set of compatible rates is then
    never empty, and yet no wider than 95 % asks for.

    Args:
        truth: true rates in [0, 1].
        passed: how many records the judge passes, and of how many.
        sensitivity: how many records labelled pass the judge passes, and of how many.
        specificity: how many records labelled fail the judge fails, and of how many.

    Returns:
        One answer for each element; all arguments broadcast against each other.
    """
    truth = np.asarray(truth, dtype=float)
    (x, n), (a, m1), (b, m0) = [
        tuple(np.asarray(c, dtype=float) for c in pair) for pair in (passed, sensitivity, specificity)
    ]
    c = m0 - b  # labelled fails that the judge passes
    # The likeliest shares p, s, u of the three binomials under p = truth s + (1 - truth) u, for a Lagrange
    # multiplier: ``gap`` falls in it, so Newton's method is kept within a bracket.
    shape = np.broadcast_shapes(truth.shape, x.shape, n.shape, a.shape, m1.shape, b.shape, m0.shape)
    multiplier, bound = np.zeros(shape), 1e3 * (n + m1 + m0)
    low, high = np.broadcast_to(-bound, shape), np.broadcast_to(bound, shape)
    last = np.full(shape, np.inf)
    with np.errstate(all="ignore"):
        for _ in range(100):
            p, p_slope = _likeliest(x, n, tilt=-multiplier)
            s, s_slope = _likeliest(a, m1, tilt=multiplier * truth)
            u, u_slope = _likeliest(c, m0, tilt=multiplier * (1 - truth))
            gap = truth * s + (1 - truth) * u - p
            found = np.abs(gap) < 1e-12
            if found.all():
                break
            low, high = np.where(gap > 0, multiplier, low), np.where(gap < 0, multiplier, high)
            newton = multiplier + gap / (truth**2 * s_slope + (1 - truth) ** 2 * u_slope + p_slope)
            # Newton's steps can go to and fro between the ends of the bracket: halve it when one did not help.
            helps = (low < newton) & (newton < high) & (np.abs(gap) < last / 2)
            last = np.abs(gap)
            multiplier = np.where(found, multiplier, np.where(helps, newton, (low + high) / 2))
        variance = p * (1 - p) / n + truth**2 * s * (1 - s) / m1 + (1 - truth) ** 2 * u * (1 - u) / m0
        z = -multiplier * np.sqrt(variance)
        # How far the two ends are, in standard errors of the corrected rate.
        youden = a / m1 - c / m0
        error = np.sqrt(np.maximum(variance, 1e-300)) / youden
        below, above = _critical_values(truth / error, (1 - truth) / error)
    return (youden <= 0) | ((-below <= z) & (z <= above))


def _likeliest(k: Floats, n: Floats, *, tilt: Floats) -> tuple[Floats, Floats]:
    """The share q in [0, 1] with k / q - (n - k) / (1 - q) = tilt, and minus its slope in the tilt."""
    # Two forms of each: one is exact where the other cancels.
    root = np.sqrt(np.where(tilt > 0, (tilt - n) ** 2 + 4 * tilt * (n - k), (tilt + n) ** 2 - 4 * tilt * k))
    q = np.clip(np.where(tilt + n > 0, 2 * k / (tilt + n + root), (tilt + n - root) / (2 * tilt)), 0.0, 1.0)
    return q, q * (1 - q) / root


def _critical_values(to_zero: Floats, to_one: Floats) -> tuple[Floats, Floats]:
    """How far below and above a rate its estimate may fall, in standard errors, that far from 0 and from 1.

    Estimates are ordered by their likelihood ratio to the best rate within [0, 1] (Feldman and Cousins 1998, section
    IV B); the least ratio let in is set so that the two together hold 95 %.
    """

    from scipy.special import ndtr  # a fifth of a second, which who only reads scores need not wait

    def limit(ratio: Floats, distance: Floats) -> Floats:
        return np.where(np.sqrt(ratio) <= distance, np.sqrt(ratio), (ratio / distance + distance) / 2)

    # From the one-sided value at an end of [0, 1] to the two-sided one far from both.
    low, high = np.full(to_one.shape, NormalDist().inv_cdf(0.95) ** 2), np.full(to_one.shape, Z95**2)
    for _ in range(20):
        ratio = (low + high) / 2
        held = ndtr(limit(ratio, to_one)) - ndtr(-limit(ratio, to_zero)) >= 0.95
        low, high = np.where(held, low, ratio), np.where(held, ratio, high)
    return limit(high, to_zero), limit(high, to_one)


class Labels(BaseModel):
    """How many more labels: of records labelled pass, and of records labelled fail."""

    model_config = ConfigDict(frozen=True)
    passes: int
    fails: int


def labels_to_halve(raw: Rate, sensitivity: Rate, *, specificity: Rate) -> Labels | None:
    """The fewest labels that would halve the corrected interval's width, if the judge goes on erring as often.

    They are split between records labelled pass and fail in proportion to what each adds to the interval's variance
    (Neyman's allocation).

    Returns:
        ``None`` where labels alone cannot: the sample's own uncertainty is more than half of the interval, so more
        records must be judged; or where nothing is known of the judge or of the records.
    """
    if raw.n == 0 or sensitivity.n == 0 or specificity.n == 0:
        return None
    now = corrected(raw, sensitivity, specificity=specificity)
    half = (now.high - now.low) / 2
    # One record of each kind is added, so that a judge without an error so far is not taken for a perfect one.
    s = (sensitivity.value * sensitivity.n + 1) / (sensitivity.n + 2)
    f = (specificity.value * specificity.n + 1) / (specificity.n + 2)
    spread = now.value * math.sqrt(s * (1 - s)), (1 - now.value) * math.sqrt(f * (1 - f))
    share = spread[0] / sum(spread)

    def more(total: int) -> Labels:
        passes = math.ceil(share * (sensitivity.n + specificity.n + total)) - sensitivity.n
        passes = min(max(passes, 0), total)
        return Labels(passes=passes, fails=total - passes)

    def halves(total: int) -> bool:
        labels = more(total)
        then = corrected(
            raw,
            sensitivity.model_copy(update={"n": sensitivity.n + labels.passes}),
            specificity=specificity.model_copy(update={"n": specificity.n + labels.fails}),
        )
        return then.high - then.low <= half

    too_few, enough = 0, 64
    while not halves(enough):
        too_few, enough = enough, 2 * enough
        if enough > _MAX_LABELS:
            return None
    while enough - too_few > max(1, enough // 200):
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if halves(middle) else (middle, enough)
    return more(enough)
