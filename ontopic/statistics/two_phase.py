"""Two models' true difference where a judge saw all pairs of answers and a person some of them.

Double sampling for stratification (Neyman 1938; Cochran, "Sampling Techniques", 12.2): the judge's verdicts put each
pair into a stratum, and of each stratum some pairs, drawn at random, get a person's labels. What the labels say of a
stratum counts as much as the stratum is of all pairs, and nothing is assumed of the judge's errors.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Z95, Rate

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_PAD = 0.25  # of a labelled pair for either side in each stratum, or few labels that all agree would look certain


class Errors(BaseModel):
    """How the judge errs on the answers of one model, on 95 % intervals; ``n`` is how many such answers are labelled.

    Attributes:
        sensitivity: share of the answers labelled pass that the judge passes.
        specificity: share of the answers labelled fail that the judge fails.
    """

    model_config = ConfigDict(frozen=True)
    sensitivity: Rate
    specificity: Rate


class TrueDifference(BaseModel):
    """What a person's labels say of champion and challenger, and of the judge on each.

    Attributes:
        improvement: the challenger's true pass rate minus the champion's.
        p_sensitivity, p_specificity: of the test that the judge's sensitivity, or specificity, is the same on both.
    """

    model_config = ConfigDict(frozen=True)
    improvement: Rate
    champion: Errors
    challenger: Errors
    p_sensitivity: float
    p_specificity: float

    @property
    def differ(self) -> bool:
        """Whether the judge errs otherwise on the one than on the other, at 5 %: two tests at half of it."""
        return min(self.p_sensitivity, self.p_specificity) < 0.025


class LabelledPairs(BaseModel):
    """Pairs of answers with the judge's verdicts on them and a person's labels.

    Attributes:
        verdicts, labels: of shape (m, 2), champion and challenger; true is a pass.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    verdicts: Bools
    labels: Bools

    @property
    def strata(self) -> list[Bools]:
        """Which of them are wins of the challenger, losses, and pairs on which the judge sees no difference."""
        champion, challenger = self.verdicts[:, 0], self.verdicts[:, 1]
        return [challenger & ~champion, champion & ~challenger, champion == challenger]


def true_difference(pairs: LabelledPairs, *, wins: int, losses: int, agreeing: int, same: int = 0) -> TrueDifference:
    """Estimate the true difference of two models, and the judge's errors on each.

    The interval of the improvement covers 95 to 98 % at 60 labelled pairs on which the verdicts differ and 60 on which
    they agree; ``benchmarks/judge_errors.py`` measures it. The errors are those on pairs whose answers differ.

    Args:
        wins, losses, agreeing: how many pairs there are of each stratum; labelled are random ones of them.
        same: how many pairs besides are of one and the same answer, and so without a difference.
    """
    sizes, strata = (wins, losses, agreeing), pairs.strata
    n = wins + losses + agreeing + same
    difference = pairs.labels[:, 1].astype(float) - pairs.labels[:, 0]
    value, _ = _mean(difference, strata, sizes=sizes, n=n)
    padded, error = _mean(difference, strata, sizes=sizes, n=n, pad=_PAD)
    low, high = padded - Z95 * error, padded + Z95 * error
    low, high = max(-1.0, min(low, value)), min(1.0, max(high, value))
    improvement = Rate(value=value, low=low, high=high, n=len(difference))
    shares, p_values = [], []
    for truth in (True, False):
        found = [_share_right(pairs, column, truth=truth, sizes=sizes) for column in (0, 1)]
        shares.append([rate for rate, _ in found])
        _, error = _mean(found[1][1] - found[0][1], strata, sizes=sizes, n=sum(sizes))
        known = error > 0 and all(rate.n for rate in shares[-1])
        gap = shares[-1][1].value - shares[-1][0].value
        p_values.append(2 * NormalDist().cdf(-abs(gap) / error) if known else 1.0)
    champion, challenger = (Errors(sensitivity=shares[0][i], specificity=shares[1][i]) for i in (0, 1))
    return TrueDifference(
        improvement=improvement if n else Rate(value=math.nan, low=-1.0, high=1.0, n=0),
        champion=champion,
        challenger=challenger,
        p_sensitivity=p_values[0],
        p_specificity=p_values[1],
    )


def _mean(
    values: Floats, strata: list[Bools], *, sizes: tuple[int, int, int], n: int, pad: float = 0.0
) -> tuple[float, float]:
    """The mean over ``n`` pairs, of which those in no stratum count 0, and its standard error.

    Args:
        values: of the labelled pairs.
        pad: so much of a pair with the value 1, and with -1, is added to each stratum.
    """
    mean = squares = variance = 0.0
    for inside, size in zip(strata, sizes, strict=True):
        share, labelled = size / max(n, 1), inside.sum() + 2 * pad
        if not size or not labelled:
            continue
        middle = values[inside].sum() / labelled
        spread = ((values[inside] ** 2).sum() + 2 * pad) / labelled - middle**2
        mean, squares = mean + share * middle, squares + share * middle**2
        variance += share**2 * max(0.0, spread) / labelled
    return mean, math.sqrt(max(0.0, squares - mean**2) / max(n, 1) + variance)


def _share_right(pairs: LabelledPairs, column: int, *, truth: bool, sizes: tuple[int, int, int]) -> tuple[Rate, Floats]:
    """The share of one model's answers with this label on which the judge is right, and each pair's part in its error.

    The error is that of a ratio by linearisation; the interval is Wilson's for as many answers as would have it.
    """
    of_truth, n = pairs.labels[:, column] == truth, sum(sizes)
    right = of_truth & (pairs.verdicts[:, column] == truth)
    there, _ = _mean(of_truth.astype(float), pairs.strata, sizes=sizes, n=n)
    if not there:
        return Rate(value=math.nan, low=0.0, high=1.0, n=0), np.zeros(len(of_truth))
    share = min(1.0, _mean(right.astype(float), pairs.strata, sizes=sizes, n=n)[0] / there)
    part = (right - share * of_truth) / there
    _, error = _mean(part, pairs.strata, sizes=sizes, n=n)
    labelled = int(of_truth.sum())
    worth = min(labelled, share * (1 - share) / error**2) if error > 1e-9 else labelled
    centre, spread = (
        (share + Z95**2 / (2 * worth)),
        Z95 * math.sqrt(share * (1 - share) / worth + (Z95 / 2 / worth) ** 2),
    )
    scale = 1 + Z95**2 / worth
    low, high = max(0.0, (centre - spread) / scale), max(share, min(1.0, (centre + spread) / scale))
    return Rate(value=share, low=low, high=high, n=labelled), part
