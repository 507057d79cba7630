"""Looks at a paired comparison before its end: the level they hold together, and what they find."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ontopic.statistics.group_sequential import INTERIM, LEVEL, detectable_loss, look


def test_before_the_end_it_takes_three_standard_errors() -> None:
    nine, ten = look([9], 9, final=False), look([10], 10, final=False)
    assert (nine.worse, nine.needed, nine.p_value) == (False, None, pytest.approx(2**-9))
    assert (ten.worse, ten.needed, ten.p_value) == (True, 10, pytest.approx(2**-10))
    assert not look([100], 64, final=False).worse and look([100], 66, final=False).worse
    assert look([0], 0, final=False).needed is None


def test_at_the_end_the_mid_p_of_the_sign_test_decides() -> None:
    assert not look([4], 4, final=True).worse
    five = look([5], 5, final=True)
    assert (five.worse, five.p_value, five.spent) == (True, pytest.approx(2**-6), 0.0)
    assert not look([20], 14, final=True).worse and look([20], 15, final=True).worse
    assert not look([20], 5, final=True).worse  # better is not worse


def test_looks_that_were_taken_leave_less_for_the_end() -> None:
    alone, after = look([43], 28, final=True), look([*range(5, 43, 5), 43], 28, final=True)
    assert 0.001 < after.spent < 0.01
    assert (alone.needed, after.needed) == (28, 29)
    assert after.p_value > alone.p_value
    assert alone.worse and not after.worse


@pytest.mark.parametrize("level", [LEVEL, LEVEL / 3, 0.2], ids=str)
@pytest.mark.parametrize("looks", [[1], [5, 12], [3, 3, 10, 14], [10, 11, 12, 13, 14, 15]], ids=str)
def test_the_chance_of_a_fair_walk_is_that_of_all_its_paths(looks: list[int], level: float) -> None:
    spent, ends = 0, dict.fromkeys(range(looks[-1] + 1), 0)
    for path in itertools.product((0, 1), repeat=looks[-1]):
        losses = list(itertools.accumulate(path, initial=0))
        if any(losses[n] and _tail(losses[n], n) <= INTERIM * (level / LEVEL) for n in looks[:-1]):
            spent += 1
        else:
            ends[losses[-1]] += 1
    for losses, n in ends.items():
        found = look(looks, losses, final=True, level=level)
        p_value = (spent + n / 2 + sum(ends[more] for more in range(losses + 1, looks[-1] + 1))) / 2 ** looks[-1]
        assert found.p_value == pytest.approx(p_value)
        assert found.spent == pytest.approx(spent / 2 ** looks[-1])
        assert found.worse == (p_value <= level)


def _tail(losses: int, n: int) -> float:
    return sum(math.comb(n, k) for k in range(losses, n + 1)) / 2**n


@pytest.mark.parametrize(("looks", "size"), [(24, 5), (24, 20), (96, 20)])
@pytest.mark.parametrize("discordant", [0.05, 0.15])
def test_an_equal_model_is_found_worse_in_at_most_three_of_a_hundred_stretches(
    looks: int, size: int, discordant: float
) -> None:
    assert found_worse(looks, size, discordant=discordant, worse=0.0, runs=3000) <= 0.03


def test_a_worse_model_is_found_about_as_often_as_by_one_test_at_the_end() -> None:
    assert found_worse(24, 5, discordant=0.10, worse=0.05, runs=1000) > 0.34
    assert found_worse(10, 100, discordant=0.10, worse=0.05, runs=200) > 0.98


def found_worse(looks: int, size: int, *, discordant: float, worse: float, runs: int) -> float:
    """How often a stretch of so many looks, each after so many more pairs, ends with a model found worse."""
    chance = np.random.default_rng(7)
    shares = [(discordant + worse) / 2, (discordant - worse) / 2, 1 - discordant]
    pairs = chance.multinomial(size, shares, size=(runs, looks)).cumsum(1)
    losses, seen = pairs[:, :, 0], pairs[:, :, :2].sum(2)
    z = (2 * losses - seen) / np.sqrt(np.maximum(seen, 1))
    found = 0
    for run in range(runs):
        # Looks that find nothing for sure are left out: an exact p of 0.00135 is over 2.7 standard errors, and the end
        # needs more than 1.7.
        early = np.flatnonzero(z[run, :-1] > 2.7)
        found += any(look([int(seen[run, i])], int(losses[run, i]), final=False).worse for i in early) or bool(
            z[run, -1] > 1.7 and look(seen[run].tolist(), int(losses[run, -1]), final=True).worse
        )
    return found / runs


def test_what_could_have_been_found_is_said() -> None:
    assert detectable_loss(0, 0) is None
    assert detectable_loss(4, 0) is None
    few, many = detectable_loss(120, 3), detectable_loss(1000, 25)
    assert few is not None and many is not None
    assert 0.07 < few < 0.10 and 0.02 < many < 0.035
    after = detectable_loss(120, 3, spent=0.01)
    assert after is not None and after > few
    # As often as it says: the share of stretches in which it is found.
    assert found_worse(1, 120, discordant=2 * 3 / 120 + few, worse=few, runs=2000) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("discordant", "losses"), [([], 0), ([3], 4), ([3], -1)], ids=str)
def test_counts_that_cannot_be_are_refused(discordant: list[int], losses: int) -> None:
    with pytest.raises(ValueError, match="losses at looks"):
        look(discordant, losses, final=True)
