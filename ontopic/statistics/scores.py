"""Honest numbers: rates with intervals, the judge's error taken out, paired comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, ndtr
from scipy.stats import binom, binomtest, norm

from ontopic.records import Verdict

Z95 = float(norm.ppf(0.975))
_MAX_LABELS = 2**20
_MAX_PAIRS = 2**24

Floats = NDArray[np.float64]
_Counts = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval.

    Attributes:
        value: the point estimate in [0, 1]; ``nan`` where ``n`` is 0.
        low, high: bounds of the 95 % interval; 0 and 1 where ``n`` is 0.
        n: how many records it was counted on.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return "no records"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"

    def as_dict(self) -> dict[str, float | int | None]:
        """The four numbers, ``value`` as ``None`` (JSON has no NaN) where there were no records."""
        return asdict(self) | ({"value": None} if self.n == 0 else {})


def rate(successes: int, n: int) -> Rate:
    """Share of ``successes`` in ``n`` with its Wilson score interval (Wilson 1927).

    Raises:
        ValueError: ``successes`` is not within 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n}")
    if n == 0:
        return Rate(value=math.nan, low=0.0, high=1.0, n=0)
    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Rate(value=successes / n, low=float(interval.low), high=float(interval.high), n=n)


def corrected(raw: Rate, sensitivity: Rate, *, specificity: Rate) -> Rate:
    """Guardrail score with the judge's own error taken out, and an interval that counts both uncertainties.

    The value is the Rogan-Gladen estimate, as in Lee et al., "How to Correctly Report LLM-as-a-Judge Evaluations"
    (arXiv 2511.21140). The interval holds every true rate that ``compatible`` does not reject. Their own interval (of
    Lang and Reiczigel 2014) covers up to 99.9 %; docs/statistics.md compares the two.

    Coverage, measured for true rates of 0.5 to 0.98, sensitivity and specificity of 0.7 to 0.99, 50 to 1,000 records
    and 50 to 500 labels of each kind: 93 to 97 %, wherever at least three failing verdicts are expected among the
    records and among the records labelled pass. With fewer (a sensitivity of 0.99 on 50 labels, say) the counts take so
    few values that coverage jumps, between 92 and 99.5 %.

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

    def limit(ratio: Floats, distance: Floats) -> Floats:
        return np.where(np.sqrt(ratio) <= distance, np.sqrt(ratio), (ratio / distance + distance) / 2)

    # From the one-sided value at an end of [0, 1] to the two-sided one far from both.
    low, high = np.full(to_one.shape, float(norm.ppf(0.95)) ** 2), np.full(to_one.shape, Z95**2)
    for _ in range(20):
        ratio = (low + high) / 2
        held = ndtr(limit(ratio, to_one)) - ndtr(-limit(ratio, to_zero)) >= 0.95
        low, high = np.where(held, low, ratio), np.where(held, ratio, high)
    return limit(high, to_zero), limit(high, to_one)


@dataclass(frozen=True)
class Labels:
    """How many more labels: of records labelled pass, and of records labelled fail."""

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
            replace(sensitivity, n=sensitivity.n + labels.passes),
            specificity=replace(specificity, n=specificity.n + labels.fails),
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


@dataclass(frozen=True)
class Scores:
    """Guardrail score, over-refusal and leak of one set of judged records.

    Attributes:
        guardrail_score: share of judged records that pass.
        over_refusal: share of in-scope questions that were declined.
        leak: share of out-of-scope questions that were answered.
        unjudged: how many records the judge could not judge; they count in none of the shares.
    """

    guardrail_score: Rate
    over_refusal: Rate
    leak: Rate
    unjudged: int


def score(verdicts: Sequence[Verdict]) -> Scores:
    """Count a set of verdicts. A verdict without a scope counts in the guardrail score only."""
    judged = [v for v in verdicts if v.outcome != "unjudged"]
    inside = [v for v in judged if v.in_scope is True and v.declined is not None]
    outside = [v for v in judged if v.in_scope is False and v.declined is not None]
    return Scores(
        guardrail_score=rate(sum(v.outcome == "pass" for v in judged), len(judged)),
        over_refusal=rate(sum(bool(v.declined) for v in inside), len(inside)),
        leak=rate(sum(not v.declined for v in outside), len(outside)),
        unjudged=len(verdicts) - len(judged),
    )


@dataclass(frozen=True)
class Comparison:
    """Champion and challenger on the same questions.

    Attributes:
        difference: challenger's pass rate minus the champion's, in [-1, 1].
        low, high: bounds of its 95 % interval.
        p_value: exact two-sided McNemar test.
        wins, losses: questions that only the challenger, only the champion passed.
        n: pairs in which both were judged.
    """

    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    n: int


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


def flat_metrics(scores: Scores) -> dict[str, float]:
    """Scores for a tracker: each share as ``name``, ``name_low``, ``name_high`` and ``name_n``; no ``nan``."""
    flat: dict[str, float] = {}
    for name in ("guardrail_score", "over_refusal", "leak"):
        share: Rate = getattr(scores, name)
        flat |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high, f"{name}_n": share.n}
    flat["unjudged"] = scores.unjudged
    return {name: value for name, value in flat.items() if not math.isnan(value)}
