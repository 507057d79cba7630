"""How far several judges agree: Krippendorff's alpha with its 95 % interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ontopic.records import Verdict
from ontopic.statistics.rates import Rate

Votes = tuple[int, int]
"""How many judges pass a record, and how many fail it."""

_RESAMPLES = 2000


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
