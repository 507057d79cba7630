"""Cohen's kappa and its score interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import cohen_kappa_score

from ontopic.statistics.agreement import compatible_kappa, kappa


def by_grid(counts: NDArray[np.int_], value: float, steps: int = 700) -> float:
    """Pearson's chi-squared of the likeliest table with this kappa, found by trying margins."""
    a, b = np.meshgrid(*[np.linspace(0.3, 0.8, steps)] * 2)
    apart = (1 - value) * (a + b - 2 * a * b)
    cells = np.array([a - (apart + a - b) / 2, (apart + a - b) / 2, (apart - a + b) / 2, 1 - a - (apart - a + b) / 2])
    cells = np.where((cells > 0).all(axis=0), cells, 1e-300)
    best = cells.reshape(4, -1)[:, (counts @ np.log(cells.reshape(4, -1))).argmax()] * counts.sum()
    return float(((counts - best) ** 2 / best).sum())


@pytest.mark.parametrize("counts", [(40, 10, 5, 45), (30, 2, 2, 18), (281, 28, 34, 475)], ids=str)
def test_the_bounds_are_where_pearsons_chi_squared_begins_to_reject(counts: tuple[int, int, int, int]) -> None:
    found, table = kappa(counts), np.array(counts)
    labels = np.repeat([1, 1, 0, 0], counts), np.repeat([1, 0, 1, 0], counts)
    assert found.value == pytest.approx(cohen_kappa_score(*labels))
    assert found.n == sum(counts)
    for end, beyond in ((found.low, -1e-9 + found.low - 0.2), (found.high, min(0.999, found.high + 0.1))):
        limit = brentq(lambda value: by_grid(table, value) - 1.959964**2, *sorted((found.value, beyond)), xtol=1e-4)
        assert end == pytest.approx(limit, abs=2e-3)


def test_ten_right_of_ten_are_not_certain() -> None:
    few, many = kappa((5, 0, 0, 5)), kappa((500, 0, 0, 500))
    assert (few.value, few.high) == (1.0, 1.0)
    assert few.low < 0.6 < 0.98 < many.low < 1.0
    assert (kappa((0, 5, 5, 0)).low, kappa((0, 5, 5, 0)).high) == pytest.approx((-1.0, -few.low))


def test_where_there_is_nothing_to_agree_on_kappa_is_unknown() -> None:
    for counts in ((0, 0, 0, 0), (3, 0, 0, 0), (0, 0, 0, 3)):
        unknown = kappa(counts)
        assert math.isnan(unknown.value)
        assert (unknown.low, unknown.high, unknown.n) == (-1.0, 1.0, sum(counts))


def test_any_small_table_has_an_interval_around_its_value() -> None:
    for counts in [(i, j, k, m) for i in (0, 2) for j in (0, 1) for k in (0, 1) for m in (0, 3)]:
        found = kappa(counts)
        assert math.isnan(found.value) or -1 <= found.low <= found.value <= found.high <= 1
        assert math.isnan(found.value) or found.low < found.high


@pytest.mark.parametrize(
    ("passes", "fails", "sensitivity", "specificity"),
    [
        pytest.param(509, 309, 0.933, 0.909, id="the default card"),
        pytest.param(32, 20, 0.95, 0.90, id="52 labels"),
        pytest.param(32, 20, 0.97, 0.95, id="52 labels, good"),
        pytest.param(36, 24, 0.99, 0.99, id="60 labels, nearly perfect"),
        pytest.param(50, 50, 0.95, 0.95, id="100 balanced labels"),
    ],
)
def test_the_lower_bound_is_seldom_above_the_truth(
    passes: int, fails: int, sensitivity: float, specificity: float
) -> None:
    n = passes + fails
    shares = np.array(
        [passes * sensitivity, passes * (1 - sensitivity), fails * (1 - specificity), fails * specificity]
    )
    shares /= n
    said = shares[0] + shares[2]
    by_chance = passes / n * said + fails / n * (1 - said)
    true = float((shares[0] + shares[3] - by_chance) / (1 - by_chance))
    drawn = np.random.default_rng(0).multinomial(n, shares, size=20_000)
    tables, times = np.unique(drawn, axis=0, return_counts=True)
    said_shares, label_shares = (tables[:, 0] + tables[:, 2]) / n, (tables[:, 0] + tables[:, 1]) / n
    chance = said_shares * label_shares + (1 - said_shares) * (1 - label_shares)
    above = (tables[:, 0] + tables[:, 3]) / n - chance > true * (1 - chance)
    outside = ~compatible_kappa(true, tables)
    assert times[outside & above].sum() / times.sum() <= 0.03
    assert times[outside].sum() / times.sum() <= 0.07
