"""How many questions the gate takes, and what difference some find: by the test that the gate does."""

from __future__ import annotations

import numpy as np
import pytest
from outcomes import compared

from ontopic.statistics.sample_size import detectable_difference, gate_power, sample_size


@pytest.mark.parametrize(
    ("n", "difference", "discordant", "limit", "alpha"),
    [
        (150, 0.08, 0.15, 0.0, 0.05),
        (60, 0.2, 0.3, 0.0, 0.004),
        (120, 0.1, 0.2, 0.02, 0.05),
        (120, 0.0, 0.1, -0.05, 0.05),
        (9, 0.5, 0.6, 0.0, 0.05),
    ],
)
def test_the_power_is_that_of_the_comparison_whose_lower_bound_the_gate_reads(
    n: int, difference: float, discordant: float, limit: float, alpha: float
) -> None:
    chance = np.random.default_rng(3)
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    counts, times = np.unique(chance.multinomial(n, shares, 20_000)[:, :2], axis=0, return_counts=True)
    passes = [compared(int(wins), int(losses), n).rate_at(alpha).low > limit for wins, losses in counts]
    simulated = float(np.average(passes, weights=times))
    assert 0.1 < simulated < 0.97
    assert gate_power(n, difference, discordant=discordant, limit=limit, alpha=alpha) == pytest.approx(
        simulated, abs=0.012
    )


def test_the_power_of_450_questions_at_10_percent_discordant() -> None:
    known = {0.0: 0.0247, 0.02: 0.266, 0.03: 0.525, 0.05: 0.934}
    found = {difference: gate_power(450, difference, discordant=0.1) for difference in known}
    assert found == pytest.approx(known, abs=0.001)


@pytest.mark.parametrize(
    ("difference", "discordant", "limit"), [(0.05, 0.1, 0.0), (0.1, 0.3, 0.0), (0.15, 0.15, 0.0), (0.0, 0.1, -0.05)]
)
def test_the_sample_size_is_the_least_about_with_the_power_asked_for(
    difference: float, discordant: float, limit: float
) -> None:
    n = sample_size(difference, discordant, limit=limit)
    assert n is not None
    power = [gate_power(of, difference, discordant=discordant, limit=limit) for of in (n, round(n * 0.9))]
    assert power[1] < 0.8 <= power[0] < 0.83 or n < 30


def test_a_smaller_difference_more_power_or_a_stricter_level_needs_more_pairs() -> None:
    few = sample_size(0.05, 0.1) or 0
    more = [
        sample_size(0.03, 0.1),
        sample_size(0.05, 0.1, power=0.9),
        sample_size(0.05, 0.1, alpha=0.01),
        sample_size(0.05, 0.1, limit=0.01),
    ]
    assert 0 < few < min(n or 0 for n in more)
    assert sample_size(1e-5, 0.3) is None


def test_the_detectable_difference_is_the_inverse_of_the_sample_size() -> None:
    assert detectable_difference(sample_size(0.05, 0.1) or 0, 0.1) == pytest.approx(0.05, abs=2e-4)
    assert detectable_difference(5, 0.1) is None
    assert detectable_difference(450, 0.0) is None
    assert detectable_difference(450, 0.1, limit=0.2) is None
    found = [detectable_difference(450, 0.1, alpha=alpha) or 0.0 for alpha in (0.05, 0.01)]
    assert [gate_power(450, d, discordant=0.1, alpha=a) for d, a in zip(found, (0.05, 0.01), strict=True)] == (
        pytest.approx([0.8, 0.8], abs=1e-3)
    )
    with pytest.raises(ValueError, match="n 0"):
        detectable_difference(0, 0.1)


@pytest.mark.parametrize(("difference", "discordant"), [(0.0, 0.1), (0.2, 0.1), (0.1, 1.5)])
def test_a_difference_that_cannot_be_is_refused(difference: float, discordant: float) -> None:
    with pytest.raises(ValueError, match="discordant"):
        sample_size(difference, discordant)
