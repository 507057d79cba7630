"""How many questions a comparison takes, and what difference some find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from outcomes import compared

from ontopic.statistics.sample_size import detectable_difference, sample_size


@pytest.mark.parametrize(("difference", "discordant"), [(0.05, 0.1), (0.1, 0.3), (0.15, 0.15)])
def test_the_sample_size_gives_the_power_that_was_asked_for(difference: float, discordant: float) -> None:
    n = sample_size(difference, discordant)
    chance = np.random.default_rng(3)
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    counts, times = np.unique(chance.multinomial(n, shares, 20_000)[:, :2], axis=0, return_counts=True)
    rejects = [compared(int(wins), int(losses), n).p_value <= 0.05 for wins, losses in counts]
    assert float(np.average(rejects, weights=times)) == pytest.approx(0.8, abs=0.015)
    # the approximation of Connor (1987), a little smaller
    spread = math.sqrt(discordant - difference**2)
    connor = ((1.959964 * math.sqrt(discordant) + 0.841621 * spread) / difference) ** 2
    assert connor <= n <= connor + 3 / difference


def test_a_smaller_difference_or_more_power_needs_more_pairs() -> None:
    assert sample_size(0.05, 0.1) < sample_size(0.03, 0.1)
    assert sample_size(0.05, 0.1) < sample_size(0.05, 0.1, power=0.9)
    assert sample_size(-0.05, 0.1) == sample_size(0.05, 0.1)


def test_the_detectable_difference_is_the_inverse_of_the_sample_size() -> None:
    assert detectable_difference(sample_size(0.05, 0.1), 0.1) == pytest.approx(0.05, abs=2e-4)
    assert detectable_difference(5, 0.1) is None


@pytest.mark.parametrize(("difference", "discordant"), [(0.0, 0.1), (0.2, 0.1), (0.1, 1.5)])
def test_a_difference_that_cannot_be_is_refused(difference: float, discordant: float) -> None:
    with pytest.raises(ValueError, match="discordant"):
        sample_size(difference, discordant)
