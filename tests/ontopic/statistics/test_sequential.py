"""A stream that is looked at after every record: run lengths and intervals are what is stated."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from ontopic.statistics.sequential import confidence_sequence, shiryaev_roberts


def test_the_evidence_is_what_the_sum_over_all_starts_says() -> None:
    word, healthy, lowered = "pppfpfffpf", 0.8, (0.7, 0.3)
    evidence = (0.0, 0.0)
    for letter in word:
        evidence = shiryaev_roberts(evidence, passed=letter == "p", healthy=healthy, lowered=lowered)
    for rate, found in zip(lowered, evidence, strict=True):
        ratios = [rate / healthy if letter == "p" else (1 - rate) / (1 - healthy) for letter in word]
        assert found == pytest.approx(sum(math.prod(ratios[start:]) for start in range(len(word))))


@pytest.mark.parametrize("healthy", [0.8, 0.95])
def test_false_alarms_come_after_the_stated_number_of_records_on_average(healthy: float) -> None:
    limit, lowered, chance = 300.0, (healthy - 0.05, healthy - 0.3), random.Random(0)
    alarmed = []
    for _ in range(400):
        evidence, n = (0.0, 0.0), 0
        while sum(evidence) / 2 < limit:
            evidence = shiryaev_roberts(evidence, passed=chance.random() < healthy, healthy=healthy, lowered=lowered)
            n += 1
        alarmed.append(n)
    # What is over the limit when it is reached makes it somewhat longer.
    assert limit * 0.9 <= sum(alarmed) / len(alarmed) <= limit * 1.6


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_after_passes_alone_the_lower_bound_has_a_closed_form(n: int) -> None:
    found = confidence_sequence(n, n)
    assert (found.value, found.high, found.n) == (1.0, 1.0, n)
    assert found.low == pytest.approx((0.05 / (n + 1)) ** (1 / n), abs=1e-9)
    mirrored = confidence_sequence(0, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - found.low))


def test_at_its_bounds_the_mixture_is_twenty_times_as_likely() -> None:
    found = confidence_sequence(83, 100)
    # The mean of the likelihood over all rates, by summing a fine grid.
    grid = (np.arange(200_000) + 0.5) / 200_000
    mixture = np.mean(grid**83 * (1 - grid) ** 17)
    for bound in (found.low, found.high):
        assert mixture / (bound**83 * (1 - bound) ** 17) == pytest.approx(20, rel=1e-4)
    assert 0.68 < found.low < found.value < found.high < 0.93


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_it_holds_the_true_rate_at_all_times_at_once(rate: float) -> None:
    """Looked at after every record of 2,000; Wilson's interval would miss it in half of the streams at some time."""
    chance = np.random.default_rng(1)
    missed = 0
    bounds: dict[tuple[int, int], bool] = {}
    for _ in range(300):
        passes = np.cumsum(chance.random(2000) < rate)
        for n in range(1, 2001, 19):
            key = (int(passes[n - 1]), n)
            if key not in bounds:
                found = confidence_sequence(*key)
                bounds[key] = found.low <= rate <= found.high
            if not bounds[key]:
                missed += 1
                break
    assert missed <= 0.05 * 300


def test_of_nothing_nothing_is_known() -> None:
    found = confidence_sequence(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize(("passes", "n"), [(-1, 3), (4, 3)])
def test_more_passes_than_records_are_refused(passes: int, n: int) -> None:
    with pytest.raises(ValueError, match="passes"):
        confidence_sequence(passes, n)
