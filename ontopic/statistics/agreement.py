"""How far judges agree, with 95 % intervals: Cohen's kappa of two, Krippendorff's alpha of several."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ontopic.records import Verdict
from ontopic.statistics.rates import Z95, Rate

Votes = tuple[int, int]
"""How many judges pass a record, and how many fail it."""

Floats = NDArray[np.float64]

_RESAMPLES = 2000
_TINY = 1e-4  # a record in each cell, so that the likeliest table has none that is empty
_HALVINGS = 30  # of an interval or a step


def votes(said: Sequence[Verdict]) -> Votes:
    """The votes on one record; ``unjudged`` is not a vote."""
    return sum(v.outcome == "pass" for v in said), sum(v.outcome == "fail" for v in said)


def agreement(verdicts_by_judge: Sequence[Sequence[Verdict]]) -> Rate:
    """The agreement of several judges on the same records, in the same order; see ``agreement_of_votes``.

    Raises:
        ValueError: the judges' verdicts are not equally many.
    """
    return agreement_of_votes(Counter(votes(row) for row in zip(*verdicts_by_judge, strict=True)))


def agreement_of_votes(counts: Mapping[Votes, int]) -> Rate:
    """Krippendorff's alpha for nominal data (Krippendorff, "Content Analysis", 2004); ``unjudged`` is a missing value.

    Alpha is 1 where the judges always agree, 0 where they agree as often as chance would have them, and less where they
    contradict each other. The interval is a percentile bootstrap over records. Half a record each of all pass, all
    fail and the two most even splits is added to what is resampled: without them, full agreement on few records would
    look certain. In simulations of three judges its coverage is 94 to 98 % (30 to 600 records, alpha 0.6 to 0.9).

    Args:
        counts: how many records got which votes.

    Returns:
        Alpha in [-1, 1], on the ``n`` records that two or more judged; ``nan`` with the interval [-1, 1] where there
        is no such record, or all votes are the same, so that there is nothing to agree on beyond chance.
    """
    pairable = {vote: count for vote, count in counts.items() if sum(vote) >= 2}
    n = sum(pairable.values())
    if n == 0 or any(sum(vote[side] * count for vote, count in pairable.items()) == 0 for side in (0, 1)):
        return Rate(value=math.nan, low=-1.0, high=1.0, n=n)
    patterns, records = np.array(list(pairable)), np.array(list(pairable.values()))
    value = float(_alpha(patterns, records[np.newaxis])[0])

    judges = max(sum(vote) for vote in pairable)
    half = judges // 2
    patterns = np.vstack([patterns, [(judges, 0), (0, judges), (half, judges - half), (judges - half, half)]])
    shares = np.append(records, [0.5] * 4) / (n + 2)
    resampled = _alpha(patterns, np.random.default_rng(0).multinomial(n, shares, size=_RESAMPLES))
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Rate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)


def _alpha(patterns: NDArray[np.int_], records: NDArray[np.int_]) -> NDArray[np.float64]:
    """Alpha of each sample; ``nan`` where all its votes are the same.

    Args:
        patterns: votes, of shape (patterns, 2).
        records: how many records have which pattern, of shape (samples, patterns).
    """
    passes, fails = patterns.T
    cast = records @ patterns
    total = cast.sum(axis=1)
    observed = records @ (2 * passes * fails / (passes + fails - 1))
    expected = 2 * cast.prod(axis=1) / (total - 1)
    return 1 - np.divide(observed, expected, out=np.full(len(records), np.nan), where=expected > 0)


def kappa(counts: Sequence[int]) -> Rate:
    """Cohen's kappa of label and verdict (Cohen 1960) with its score interval.

    The interval holds every kappa that Pearson's chi-squared does not reject at 5 %, each by the likeliest table that
    has it: what Wilson's interval is for a share and Tango's for a paired difference; Donner and Eliasziw (1992) take
    it with equal margins. Cohen's own error is too small where the judge is rarely wrong: ten right of ten would have
    no interval at all. ``benchmarks/kappa.py`` measures both.

    Args:
        counts: records labelled pass and judged pass, pass and fail, fail and pass, fail and fail.

    Returns:
        Kappa in [-1, 1]; ``nan`` with the interval [-1, 1] where label and verdict are the same on all records, so that
        there is nothing to agree on beyond chance.
    """
    n = sum(counts)
    agreed = counts[0] + counts[3]
    labelled, said = counts[0] + counts[1], counts[0] + counts[2]
    by_chance = (labelled * said + (n - labelled) * (n - said)) / n**2 if n else 1.0
    if by_chance == 1.0:
        return Rate(value=math.nan, low=-1.0, high=1.0, n=n)
    value = (agreed / n - by_chance) / (1 - by_chance)
    low, high = (_end(np.array(counts), inside=value, outside=end) for end in (-1.0, 1.0))
    return Rate(value=value, low=low, high=high, n=n)


def _end(counts: NDArray[np.int_], *, inside: float, outside: float) -> float:
    """Where between two values the score test begins to reject, by bisection."""
    if abs(inside - outside) < 1e-9:
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if compatible_kappa(middle, counts):
            inside = middle
        else:
            outside = middle
    return inside


def compatible_kappa(value: float, counts: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Whether the score test does not reject, at 5 %, that kappa is ``value``.

    Args:
        counts: tables as ``kappa`` takes them, of shape (..., 4).

    Returns:
        Of shape (...).
    """
    seen = counts.astype(np.float64) + _TINY
    n = seen.sum(-1)
    expected = n[..., np.newaxis] * _likeliest(value, seen)
    return np.asarray(((seen - expected) ** 2 / expected).sum(-1) <= Z95**2)


def _likeliest(value: float, seen: Floats) -> Floats:
    """The shares of the four cells that make the tables likeliest, among those with this kappa, by Fisher scoring.

    Given kappa, the two margins determine a table.
    """
    n = seen.sum(-1)
    # Equal margins have every kappa above 0, margins of a half every kappa.
    middle = (2 * seen[..., 0] + seen[..., 1] + seen[..., 2]) / (2 * n) if value > 0 else np.full(n.shape, 0.5)
    a, b = middle, middle
    cells = _cells(value, a, b=b)
    fit = (seen * np.log(cells)).sum(-1)
    for _ in range(_HALVINGS):
        by_a, by_b = (1 - value) * (1 - 2 * b) / 2, (1 - value) * (1 - 2 * a) / 2
        along_a = np.stack([0.5 - by_a, by_a + 0.5, by_a - 0.5, -0.5 - by_a], -1)
        along_b = np.stack([0.5 - by_b, by_b - 0.5, by_b + 0.5, -0.5 - by_b], -1)
        weight = n[..., np.newaxis] / cells
        up_a, up_b = ((seen / cells * along).sum(-1) for along in (along_a, along_b))
        aa, bb, ab = ((weight * x * y).sum(-1) for x, y in ((along_a,) * 2, (along_b,) * 2, (along_a, along_b)))
        both = aa * bb - ab**2
        step_a, step_b = (bb * up_a - ab * up_b) / both, (aa * up_b - ab * up_a) / both
        size = np.ones(n.shape)
        for _ in range(_HALVINGS):
            tried = _cells(value, a + size * step_a, b=b + size * step_b)
            possible = np.asarray((tried > 0).all(-1))
            better = (seen * np.log(np.where(possible[..., np.newaxis], tried, 1e-300))).sum(-1)
            worse = ~possible | (better < fit)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        a, b = np.where(worse, a, a + size * step_a), np.where(worse, b, b + size * step_b)
        cells, before, fit = _cells(value, a, b=b), fit, np.where(worse, fit, better)
        if (fit - before).max() < 1e-9:
            break
    return cells


def _cells(value: float, a: Floats, *, b: Floats) -> Floats:
    """Shares of the cells as ``kappa`` counts them, given kappa and the shares labelled and judged pass."""
    apart = (1 - value) * (a + b - 2 * a * b)
    missed, invented = (apart + a - b) / 2, (apart - a + b) / 2
    return np.stack([a - missed, missed, invented, 1 - a - invented], -1)
