"""Records that are alike count for fewer."""

from __future__ import annotations

import numpy as np
import pytest

from ontopic.statistics.clusters import clustered_rate, effective_n
from ontopic.statistics.rates import rate


def coverage(truth: float, icc: float, runs: int = 400) -> float:
    """How often the truth is in the interval of 24 clusters of 5 with such a correlation within them."""
    chance, names, held = np.random.default_rng(3), [str(i // 5) for i in range(120)], 0
    for _ in range(runs):
        shares = chance.beta(truth * (1 - icc) / icc, (1 - truth) * (1 - icc) / icc, 24)
        share = clustered_rate((chance.random((24, 5)) < shares[:, None]).ravel().tolist(), names)
        held += share.low <= truth <= share.high
    return held / runs


@pytest.mark.parametrize("icc", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("truth", [0.85, 0.9, 0.95])
def test_the_interval_of_clustered_records_covers_the_truth(truth: float, icc: float) -> None:
    assert coverage(truth, icc) >= 0.93


def test_records_that_share_no_conversation_count_each() -> None:
    outcomes = [True] * 9 + [False]
    for clusters in ([""] * 10, list("abcdefghij")):
        assert effective_n(outcomes, clusters) == 10
        assert clustered_rate(outcomes, clusters) == rate(9, 10)
    assert effective_n([], []) == 0
    assert clustered_rate([], []).n == 0


def test_records_that_are_all_alike_count_as_few_and_independent_ones_nearly_all() -> None:
    names = [str(i // 5) for i in range(100)]
    alike = effective_n([i // 5 % 2 == 0 for i in range(100)], names)
    assert alike < 20  # as many as there are clusters, less for what few clusters leave unknown
    mixed = effective_n([i % 2 == 0 for i in range(100)], names)
    assert 60 < mixed < 100
    assert effective_n([True, False] * 50, ["one"] * 100) == 1
    wide = clustered_rate([i // 5 % 2 == 0 for i in range(100)], names)
    assert (wide.value, wide.n) == (0.5, 100)
    assert wide.high - wide.low > 2 * (rate(50, 100).high - rate(50, 100).low)
