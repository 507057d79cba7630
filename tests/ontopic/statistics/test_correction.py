"""The judge's error taken out of a rate: coverage, limits, and how many more labels it takes."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, qmc

from ontopic.statistics.correction import compatible, corrected
from ontopic.statistics.rates import Rate, rate

# Outcomes of three binomials, spread evenly over their distribution: far less noise than as many random ones.
OUTCOMES = qmc.Sobol(3, seed=7).random_base2(12)


def outcomes(
    truth: float, sensitivity: float, specificity: float, n: int, passes: int, fails: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How many of ``n`` records, and of the labelled passes and fails, the judge gets as ``compatible`` takes them."""
    passed = binom.ppf(OUTCOMES[:, 0], n, truth * sensitivity + (1 - truth) * (1 - specificity))
    return passed, binom.ppf(OUTCOMES[:, 1], passes, sensitivity), binom.ppf(OUTCOMES[:, 2], fails, specificity)


def coverage(truth: float, sensitivity: float, specificity: float, n: int, passes: int, fails: int) -> float:
    """How often the true rate is in the corrected interval."""
    x, a, b = outcomes(truth, sensitivity, specificity, n, passes, fails)
    return float(compatible(truth, (x, n), sensitivity=(a, passes), specificity=(b, fails)).mean())


@lru_cache
def all_rates(n: int) -> list[Rate]:
    return [rate(x, n) for x in range(n + 1)]


def raw_coverage(truth: float, sensitivity: float, specificity: float, n: int) -> float:
    """How often the true rate is in the raw rate's interval."""
    holds = [share.low <= truth <= share.high for share in all_rates(n)]
    return float(binom.pmf(np.arange(n + 1), n, truth * sensitivity + (1 - truth) * (1 - specificity)) @ holds)


TRUTHS, JUDGES = (0.5, 0.8, 0.95, 0.98), tuple(itertools.product((0.7, 0.85, 0.95, 0.99), (0.7, 0.9, 0.99)))
SIZES = ((50, 50, 50), (50, 500, 100), (200, 100, 100), (200, 50, 500), (1000, 100, 50), (1000, 500, 500))
GRID = tuple((t, *judge, *size) for t in TRUTHS for judge in JUDGES for size in SIZES)


def expected_fails(truth: float, sensitivity: float, specificity: float, n: int, passes: int, _: int) -> float:
    """Failing verdicts to be expected: among the records, or among those labelled pass if that's fewer."""
    return min(n * (1 - truth * sensitivity - (1 - truth) * (1 - specificity)), passes * (1 - sensitivity))


def test_the_corrected_interval_covers_the_truth_in_93_to_97_percent_and_the_raw_one_does_not() -> None:
    grid = [cell for cell in GRID if expected_fails(*cell) >= 3 - 1e-9]
    found = {cell: coverage(*cell) for cell in grid}
    assert len(grid) > 150
    assert {cell: share for cell, share in found.items() if not 0.93 <= share <= 0.97} == {}
    assert np.median(list(found.values())) == pytest.approx(0.95, abs=0.003)
    raw = [raw_coverage(t, *judge, n) for t in TRUTHS for judge in JUDGES for n in (50, 200)]
    assert np.mean([0.93 <= share <= 0.97 for share in raw]) < 0.2
    assert np.median(raw) < 0.7


def test_where_hardly_a_fail_is_expected_the_corrected_interval_is_coarse() -> None:
    # The corner that its docstring names.
    found = [coverage(*cell) for cell in GRID if expected_fails(*cell) < 3 - 1e-9]
    assert len(found) > 50
    assert min(found) >= 0.92
    assert max(found) <= 0.995


@pytest.mark.parametrize("share", [0.5, 0.55, 0.6])
def test_the_interval_of_a_judge_near_chance_covers_the_truth(share: float) -> None:
    assert coverage(0.8, share, share, 200, 100, 100) >= 0.93


@pytest.mark.parametrize(
    ("truth", "sensitivity", "specificity", "n", "passes", "fails"),
    [
        (0.9, 0.9, 0.8, 400, 120, 120),
        (0.98, 0.95, 0.9, 100, 60, 40),
        (0.55, 0.75, 0.7, 1000, 200, 50),
        (0.85, 0.93, 0.91, 100, 170, 30),
        (0.95, 0.98, 0.6, 591, 190, 10),
        (0.8, 0.99, 0.99, 50, 500, 500),
    ],
)
def test_the_interval_is_from_the_least_to_the_greatest_compatible_rate(
    truth: float, sensitivity: float, specificity: float, n: int, passes: int, fails: int
) -> None:
    sampled = zip(*outcomes(truth, sensitivity, specificity, n, passes, fails), strict=True)
    values = []
    for x, a, b in itertools.islice(sampled, 100):
        right = corrected(rate(int(x), n), rate(int(a), passes), specificity=rate(int(b), fails))
        grid = np.linspace(0, 1, 401)
        kept = grid[compatible(grid, (x, n), sensitivity=(a, passes), specificity=(b, fails))]
        if len(kept):
            assert right.low == pytest.approx(kept[0], abs=1 / 400)
            assert right.high == pytest.approx(kept[-1], abs=1 / 400)
        holds = bool(compatible(truth, (x, n), sensitivity=(a, passes), specificity=(b, fails)))
        assert (right.low <= truth <= right.high) == holds
        assert 0 <= right.low <= right.value <= right.high <= 1
        values.append(right.value)
    assert float(np.mean(values)) == pytest.approx(truth, abs=0.02)


def test_more_passes_than_the_judge_should_give_leave_an_interval_and_not_nothing() -> None:
    right = corrected(rate(300, 300), rate(180, 200), specificity=rate(180, 200))
    assert right.high == right.value == 1.0
    assert right.low < 0.995


def test_pass_and_fail_are_treated_alike() -> None:
    right = corrected(rate(70, 100), rate(45, 50), specificity=rate(30, 40))
    turned = corrected(rate(30, 100), rate(30, 40), specificity=rate(45, 50))
    assert (1 - turned.high, 1 - turned.low) == pytest.approx((right.low, right.high), abs=1e-6)


def test_a_judge_known_to_be_right_leaves_the_rate_as_it_is() -> None:
    right = corrected(rate(800, 1000), rate(10**6, 10**6), specificity=rate(10**6, 10**6))
    assert right.value == pytest.approx(0.8)
    assert (right.low, right.high) == pytest.approx((rate(800, 1000).low, rate(800, 1000).high), abs=1e-3)


def test_fewer_labelled_records_widen_the_corrected_interval() -> None:
    few = corrected(rate(80, 100), rate(18, 20), specificity=rate(18, 20))
    many = corrected(rate(80, 100), rate(900, 1000), specificity=rate(900, 1000))
    assert few.value == pytest.approx(many.value)
    assert few.high - few.low > many.high - many.low


@pytest.mark.parametrize(
    ("raw", "sensitivity", "specificity"),
    [
        (rate(0, 0), rate(9, 10), rate(9, 10)),
        (rate(5, 10), rate(0, 0), rate(9, 10)),
        (rate(5, 10), rate(9, 10), rate(0, 0)),
        (rate(5, 10), rate(5, 10), rate(5, 10)),
        (rate(5, 10), rate(3, 10), rate(4, 10)),
    ],
)
def test_without_records_or_with_a_judge_at_chance_nothing_is_known(
    raw: Rate, sensitivity: Rate, specificity: Rate
) -> None:
    right = corrected(raw, sensitivity, specificity=specificity)
    assert (right.low, right.high, right.n) == (0.0, 1.0, raw.n)
    assert right.value == pytest.approx(raw.value, nan_ok=True)


def test_the_corrected_rate_stays_within_zero_and_one() -> None:
    assert corrected(rate(100, 100), rate(90, 100), specificity=rate(90, 100)).value == 1.0
    assert corrected(rate(0, 100), rate(90, 100), specificity=rate(90, 100)).value == 0.0
