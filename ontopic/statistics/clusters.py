"""Records that are not independent: several of one conversation or of one user."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from ontopic.statistics.rates import Z95, Rate, rate

_BEFOREHAND, _WEIGHT = 0.4, 3  # a correlation that counts as much as so many fails say


def effective_n(outcomes: Sequence[bool], clusters: Sequence[str]) -> float:
    """How many independent records tell as much of a share as these, of which those of one cluster are alike.

    Their number over the design effect 1 + (m - 1) rho (Kish 1965), where m is the size of a cluster as its records see
    it, and rho the correlation within clusters by the analysis of variance (Donner 1986), not under 0. A few fails say
    little of it, so it is drawn towards 0.4, which counts as three fails do. As it is estimated from few clusters,
    Student's quantile on their number stands for the normal one (Korn and Graubard 1998).

    Args:
        outcomes: whether each record passes.
        clusters: what each belongs to; a record whose cluster is empty is one of its own.

    Returns:
        A number in (0, n]; n where no two records share a cluster, 0 without records.
    """
    n = len(outcomes)
    sizes = Counter(cluster for cluster in clusters if cluster)
    own = n - sizes.total()
    k = own + len(sizes)
    if k == n:
        return float(n)
    if k < 2:
        return 1.0
    from scipy.stats import t  # half a second, which who only reads scores need not wait

    passes: dict[str, int] = defaultdict(int)
    for outcome, cluster in zip(outcomes, clusters, strict=True):
        if cluster:
            passes[cluster] += outcome
    share = sum(outcomes) / n
    squares = sum(size**2 for size in sizes.values()) + own
    inside = sum(passes[each] * (size - passes[each]) / size for each, size in sizes.items())
    between = n * share * (1 - share) - inside
    usual = (n - squares / n) / (k - 1)  # the clusters' size, for the analysis of variance
    mean_between, mean_inside = between / (k - 1), inside / (n - k)
    spread = mean_between + (usual - 1) * mean_inside
    rho = max(0.0, (mean_between - mean_inside) / spread) if spread > 0 else 0.0
    rarer = min(sum(outcomes), n - sum(outcomes))
    rho = (rarer * rho + _WEIGHT * _BEFOREHAND) / (rarer + _WEIGHT)
    effect = 1 + (squares / n - 1) * rho
    return max(1.0, n / effect * (Z95 / float(t.ppf(0.975, k - 1))) ** 2)


def clustered_rate(outcomes: Sequence[bool], clusters: Sequence[str], *, of_all: tuple[int, int] | None = None) -> Rate:
    """The share of passes with its Wilson score interval, for as many records as ``effective_n`` says; n counts all.

    Args:
        of_all: how many of how many pass, where these are a random sample of the clusters and more is counted.
    """
    passes, n = of_all or (sum(outcomes), len(outcomes))
    effective = effective_of_all(outcomes, clusters, n=n)
    plain = rate(passes, n)
    if effective == n:
        return plain
    centre = (plain.value * effective + Z95**2 / 2) / (effective + Z95**2)
    half = Z95 / (effective + Z95**2) * math.sqrt(effective * plain.value * (1 - plain.value) + Z95**2 / 4)
    return Rate(value=plain.value, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


def effective_of_all(outcomes: Sequence[bool], clusters: Sequence[str], *, n: int) -> float:
    """``effective_n`` of n records, of whose clusters these are a random sample, or all."""
    known = len(outcomes)
    return effective_n(outcomes, clusters) * (n / known if n != known else 1) if known else float(n)
