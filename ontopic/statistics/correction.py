"""The judge's own error taken out of a guardrail score."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ontopic.statistics.rates import Z95, Rate

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


def youden_low(card: Errors) -> float:
    """Lower bound of the 95 % interval of sensitivity + specificity - 1, which is 0 for a judge at chance.

    Of the two Wilson intervals, by the method of Newcombe (1998). -1 where nothing is labelled pass or fail.
    """
    s, f = card.sensitivity, card.specificity
    if not s.n or not f.n:
        return -1.0
    return s.value + f.value - 1 - math.hypot(s.value - s.low, f.value - f.low)


def fit_p_value(raw: Rate, card: Errors) -> float:
    """How likely a raw share at least so extreme is under the likeliest of all true rates in [0, 1].

    No rate lets a judge pass more than its sensitivity, nor less than 1 - specificity. Beyond these the chance is that
    of a beta-binomial, as the card's shares are known from few labels themselves (Beta(1/2, 1/2) before them).

    Returns:
        1 where the raw share is one that the card allows.
    """
    from scipy.stats import betabinom  # half a second, which who only reads scores need not wait

    s, f = card.sensitivity, card.specificity
    x = round(raw.value * raw.n) if raw.n else 0
    if raw.n and s.n and raw.value > s.value:
        a = s.value * s.n
        return float(betabinom.sf(x - 1, raw.n, a + 0.5, s.n - a + 0.5))
    if raw.n and f.n and raw.value < 1 - f.value:
        c = (1 - f.value) * f.n
        return float(betabinom.cdf(x, raw.n, c + 0.5, f.n - c + 0.5))
    return 1.0


def corrected(raw: Rate, sensitivity: Rate, *, specificity: Rate, labelled: Rate | None = None) -> Rate:
    """Guardrail score with the judge's own error taken out, and an interval that counts all uncertainties.

    Where a random part of the same records carries labels, it is the efficient estimate of Chen et al., "Efficient
    Inference for Noisy LLM-as-a-Judge Evaluation" (arXiv 2601.05420): p mu1 + (1 - p) mu0, with the share p that the
    judge passes and the shares mu1 and mu0 of good ones among the labelled passes and fails. With labels of other
    records alone, whose mix may be another one, it is the Rogan-Gladen estimate, as in Lee et al., "How to Correctly
    Report LLM-as-a-Judge Evaluations" (arXiv 2511.21140). With both it is the likeliest rate, of which these are the
    two ends. The interval holds every true rate that ``compatible`` does not reject; docs/explanation/statistics.md has
    its coverage.

    Args:
        raw: share that the judge passes of the records without a label.
        sensitivity: share of good records that the judge passes, on all labelled records.
        specificity: share of bad records that the judge fails, on all labelled records.
        labelled: share of good ones among the labelled records of the same traffic.

    Returns:
        The corrected rate in [0, 1]; its n counts the records with and without a label. Where the judge is no better
        than chance and no record of the traffic is labelled, nothing is known: the raw value with the interval [0, 1].
    """
    labels = labelled or Rate(value=math.nan, low=0.0, high=1.0, n=0)
    n = raw.n + labels.n
    youden = sensitivity.value + specificity.value - 1
    usable = raw.n > 0 and sensitivity.n > 0 and specificity.n > 0 and (youden > 0 or labels.n > 0)
    if not usable:
        return labels if labels.n else Rate(value=raw.value, low=0.0, high=1.0, n=n)
    counts = _counts(raw), _counts(sensitivity), _counts(specificity), _counts(labels)

    def scores(truth: Floats) -> _Tested:
        return _score_test(truth, counts[0], sensitivity=counts[1], specificity=counts[2], labelled=counts[3])

    steps = np.linspace(0.0, 1.0, 65)
    if labels.n == 0:
        value = min(1.0, max(0.0, (raw.value + specificity.value - 1) / youden))
    else:  # where the score is 0, found as the ends are
        low, high = 0.0, 1.0
        for _ in range(4):
            grid = low + steps * (high - low)
            above = int((scores(grid).z > 0).sum())  # it falls
            low, high = float(grid[max(above - 1, 0)]), float(grid[min(above, len(grid) - 1)])
        value = (low + high) / 2
    # The estimate itself is always compatible. Look for each end of the interval on a grid from 0 or 1 to the
    # estimate, then on a finer grid in the cell where it was found.
    out, inside = np.array([0.0, 1.0]), np.array([value, value])
    for _ in range(4):
        grid = out[:, None] + steps * (inside - out)[:, None]
        kept = scores(grid).kept
        kept[:, -1] = True
        first = kept.argmax(axis=1)
        inside, out = grid[[0, 1], first], grid[[0, 1], np.maximum(first - 1, 0)]
    return Rate(value=value, low=float(inside[0]), high=float(inside[1]), n=n)


def _counts(share: Rate) -> tuple[float, int]:
    return (share.value * share.n if share.n else 0.0), share.n


def compatible(
    truth: ArrayLike, passed: _Counts, *, sensitivity: _Counts, specificity: _Counts, labelled: _Counts = (0, 0)
) -> NDArray[np.bool_]:
    """Whether true rates are compatible, at the 5 % level, with what a judge said and with what is known of the judge.

    A score test of the binomials (records without a label, labelled passes, labelled fails, and the labels of the same
    traffic), with the sensitivity and specificity that are the likeliest at each true rate, as Miettinen and Nurminen
    (1985) do for two binomials. Without labels of the same traffic the critical values towards 0 and 1 are those of
    Feldman and Cousins (1998) for a bounded mean: the set of compatible rates is then never empty, and yet no wider
    than 95 % asks for.

    Args:
        truth: true rates in [0, 1].
        passed: how many of the records without a label the judge passes, and of how many.
        sensitivity: how many records labelled pass the judge passes, and of how many.
        specificity: how many records labelled fail the judge fails, and of how many.
        labelled: how many of the same traffic's labelled records are labelled pass, and of how many; they count in
            sensitivity and specificity too.

    Returns:
        One answer for each element; all arguments broadcast against each other.
    """
    return _score_test(
        np.asarray(truth, dtype=float), passed, sensitivity=sensitivity, specificity=specificity, labelled=labelled
    ).kept


class _Tested(NamedTuple):
    """A score test of true rates: its statistic, positive where the data are above, and whether each is kept."""

    z: Floats
    kept: NDArray[np.bool_]


def _score_test(
    truth: Floats, passed: _Counts, *, sensitivity: _Counts, specificity: _Counts, labelled: _Counts
) -> _Tested:
    (x, n), (a, m1), (b, m0), (good, labels) = [
        tuple(np.asarray(c, dtype=float) for c in pair) for pair in (passed, sensitivity, specificity, labelled)
    ]
    c = m0 - b  # labelled fails that the judge passes
    multiplier, s, u, variance = _constrained(truth, (x, n), passes=(a, m1), fails=(c, m0))
    with np.errstate(all="ignore"):
        youden = a / m1 - c / m0
        if not labels.any():
            # How far the two ends are, in standard errors of the corrected rate.
            error = np.sqrt(np.maximum(variance, 1e-300)) / youden
            below, above = _critical_values(truth / error, (1 - truth) / error)
            z = -multiplier * np.sqrt(variance)
            return _Tested(z, (youden <= 0) | ((-below <= z) & (z <= above)))
        # The score and the information of the records and of the labels add up: given the true rate, how many of the
        # labelled records are good says nothing of the judge.
        known = np.where((n > 0) & (variance > 0), (s - u) ** 2 / np.where(variance > 0, variance, 1.0), 0.0)
        told = np.where(known > 0, -multiplier * (s - u), 0.0)
        spread = np.maximum(truth * (1 - truth), 1e-12)
        z = (told * spread + good - labels * truth) / np.sqrt(spread * (known * spread + labels))
    return _Tested(z, np.abs(z) <= Z95)


def _constrained(
    truth: Floats, passed: tuple[Floats, ...], *, passes: tuple[Floats, ...], fails: tuple[Floats, ...]
) -> tuple[Floats, Floats, Floats, Floats]:
    """The likeliest judge at each true rate: Lagrange's multiplier, the shares s of good and u of bad records that it
    passes, and the variance of what the shares p = truth s + (1 - truth) u would be off by."""
    (x, n), (a, m1), (c, m0) = passed, passes, fails
    # For a multiplier, ``gap`` falls in it, so Newton's method is kept within a bracket.
    shape = np.broadcast_shapes(truth.shape, x.shape, n.shape, a.shape, m1.shape, c.shape, m0.shape)
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
    return multiplier, s, u, variance


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
