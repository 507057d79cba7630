"""Looking again and again at the same stream of passes and fails: a chart with a stated run length, and a score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ontopic.statistics.rates import Rate

_CAP = 1e250


def shiryaev_roberts(
    evidence: Sequence[float], *, passed: bool, healthy: float, lowered: Sequence[float]
) -> tuple[float, ...]:
    """The evidence, after one more record, that the pass rate has fallen at some record before it.

    One number for each rate that it may have fallen to: R <- (1 + R) times the likelihood ratio of the record, which is
    Shiryaev's and Roberts' procedure for a Bernoulli stream. While the true rate is ``healthy`` or over, R minus the
    number of records is a supermartingale, and so is every weighted mean of such numbers. An alarm that is raised where
    the mean reaches A therefore comes after A records or more on average (the average run length), at whatever records
    it is looked at: an e-detector of Shin, Ramdas and Rinaldo, arXiv 2203.03532.

    Args:
        evidence: before the record, one for each of ``lowered``; 0 before the first.
        healthy: the least pass rate that is none too low, in (0, 1).
        lowered: rates under it, in (0, ``healthy``).
    """
    ratios = ((rate / healthy if passed else (1 - rate) / (1 - healthy)) for rate in lowered)
    return tuple(min(_CAP, (1 + before) * ratio) for before, ratio in zip(evidence, ratios, strict=True))


def confidence_sequence(passes: int, n: int, *, level: float = 0.05) -> Rate:
    """The pass rate of a stream with an interval that may be read after every record.

    With a chance of 1 - ``level`` it holds the true rate after all records at once, not only after one. It holds each
    rate p at which the mixture of likelihoods, under a uniform prior, is less than 1 / ``level`` times that of p:
    Robbins (1970); the beta-binomial mixture of Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", Annals of Statistics 49 (2021).

    Raises:
        ValueError: ``passes`` is not within 0 and ``n``.
    """
    if not 0 <= passes <= n:
        raise ValueError(f"{passes} passes in {n}")
    if n == 0:
        return Rate(value=math.nan, low=0.0, high=1.0, n=0)
    from scipy.optimize import brentq
    from scipy.special import betaln, xlog1py, xlogy

    mixture, value = float(betaln(passes + 1, n - passes + 1)) + math.log(level), passes / n

    def excess(p: float) -> float:
        return mixture - float(xlogy(passes, p) + xlog1py(n - passes, -p))

    return Rate(
        value=value,
        low=float(brentq(excess, 1e-12, value)) if passes else 0.0,
        high=float(brentq(excess, value, 1 - 1e-12)) if passes < n else 1.0,
        n=n,
    )
