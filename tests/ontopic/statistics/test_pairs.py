"""Champion and challenger on the same questions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from outcomes import compared, verdicts
from scipy.stats import binom

from ontopic.statistics.pairs import compare, compare_unjudged, standard_error
from ontopic.statistics.scores import counted_as


@pytest.mark.parametrize(
    ("champion", "challenger", "wins", "losses", "p_value"),
    [
        ("f" * 6, "p" * 6, 6, 0, 2 / 2**6),
        ("f" + "p" * 9, "p" + "f" * 9, 1, 9, 22 / 2**10),
        ("f" * 8 + "pp" + "p" * 10, "p" * 8 + "ff" + "p" * 10, 8, 2, 112 / 2**10),
        ("fffppp", "pppfff", 3, 3, 1.0),
        ("pppff", "pppff", 0, 0, 1.0),
    ],
)
def test_the_comparison_is_the_exact_mcnemar_test(
    champion: str, challenger: str, wins: int, losses: int, p_value: float
) -> None:
    compared = compare(verdicts(champion), verdicts(challenger))
    assert (compared.wins, compared.losses, compared.n) == (wins, losses, len(champion))
    assert compared.p_value == pytest.approx(p_value)
    assert compared.difference == pytest.approx((wins - losses) / len(champion))
    assert -1 <= compared.low <= compared.difference <= compared.high <= 1


def test_the_paired_interval_is_the_score_interval() -> None:
    """At each end the score test is just at 1.96, with the share of losses found by a search of its likelihood."""
    wins, losses, n = 9, 2, 60
    interval = compared(wins, losses, n)
    for end in (interval.low, interval.high):
        share = np.linspace(max(0.0, -end), (1 - end) / 2, 200_001)[1:-1]
        likelihood = (
            wins * np.log(share + end) + losses * np.log(share) + (n - wins - losses) * np.log1p(-2 * share - end)
        )
        likeliest = float(share[likelihood.argmax()])
        error = math.sqrt((2 * likeliest + end - end**2) / n)
        assert abs((wins - losses) / n - end) / error == pytest.approx(1.959964, abs=1e-3)
    same = compared(0, 0, 96)
    assert (same.low, same.high) == pytest.approx((-1 / 26, 1 / 26), abs=1e-3)
    assert (compared(5, 0, 5).high, compared(0, 5, 5).low) == (1.0, -1.0)
    assert compared(5, 0, 5).low == pytest.approx(-compared(0, 5, 5).high)


@pytest.mark.parametrize(
    ("n", "discordant", "difference"),
    [(100, 0.04, 0.0), (100, 0.04, 0.04), (100, 0.1, 0.05), (200, 0.05, 0.02), (200, 0.3, 0.2), (400, 0.1, 0.1)],
)
def test_the_paired_interval_covers_the_difference_in_93_to_97_percent(
    n: int, discordant: float, difference: float
) -> None:
    """Over every outcome there is, so that no weight goes unseen."""
    win, lose = (discordant + difference) / 2, (discordant - difference) / 2
    wins, losses = (counts.ravel().astype(float) for counts in np.mgrid[: n + 1, : n + 1])
    wins, losses = wins[wins + losses <= n], losses[wins + losses <= n]
    weight = binom.pmf(wins, n, win) * binom.pmf(losses, n - wins, lose / (1 - win))
    assert weight.sum() == pytest.approx(1)
    error = standard_error(wins, losses, n=n, difference=difference)
    covers = np.abs((wins - losses) / n - difference) <= 1.959964 * error
    assert 0.93 <= weight[covers].sum() <= 0.97
    # the interval itself says the same of the likeliest outcomes, and of those just in and just out of it
    border = np.argsort(np.abs(np.abs((wins - losses) / n - difference) - 1.959964 * error))
    for i in (*np.argsort(-weight)[:10], *border[:20]):
        interval = compared(int(wins[i]), int(losses[i]), n)
        assert (interval.low <= difference <= interval.high) == covers[i]


def test_a_pair_with_an_unjudged_side_is_left_out() -> None:
    compared = compare(verdicts("fuppf"), verdicts("ppupf"))
    assert (compared.wins, compared.losses, compared.n) == (1, 0, 3)


def test_in_the_worst_case_every_pair_counts_and_against_the_challenger() -> None:
    champion, challenger, inside = verdicts("fuppuf"), verdicts("ppupuf"), [True, False, True, None, True, False]
    worst = compare(counted_as("pass", champion, in_scope=inside), counted_as("fail", challenger, in_scope=inside))
    assert (worst.wins, worst.losses, worst.n) == (1, 2, 6)  # f-p is won; p-u and u-u are lost, u-p is even
    with pytest.raises(ValueError, match="shorter"):
        counted_as("pass", champion, in_scope=inside[1:])


def test_the_unjudged_shares_are_compared_in_pairs() -> None:
    more = compare_unjudged(verdicts("uppfu"), verdicts("puufu"))
    assert (more.wins, more.losses, more.n, more.difference) == (2, 1, 5, pytest.approx(0.2))
    assert compare_unjudged(verdicts("uu"), verdicts("uu")).difference == 0
    with pytest.raises(ValueError, match="2 champion verdicts, 1 challenger"):
        compare_unjudged(verdicts("pp"), verdicts("p"))


def test_the_interval_at_another_level_is_the_score_interval_of_that_level() -> None:
    found = compared(9, 2, 60)
    assert found.rate_at(0.05) == found.rate
    wide = found.rate_at(0.01)
    assert wide.low < found.low < found.high < wide.high
    for end in (wide.low, wide.high):
        # the quadratic of the likeliest share of losses, solved by hand
        b, c = (120 - 7) * end - 11, 2 * end * (1 - end)
        share = (math.sqrt(b * b + 8 * 60 * c) - b) / 240
        error = math.sqrt((2 * share + end - end**2) / 60)
        assert abs(7 / 60 - end) / error == pytest.approx(2.575829, abs=1e-4)
    assert compare([], []).rate_at(0.001).n == 0
    with pytest.raises(ValueError, match="alpha 0"):
        found.rate_at(0)


def test_no_pair_is_no_evidence() -> None:
    compared = compare(verdicts("uu"), verdicts("pf"))
    assert (compared.low, compared.high, compared.p_value, compared.n) == (-1.0, 1.0, 1.0, 0)


def test_comparing_different_numbers_of_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="2 champion verdicts, 1 challenger"):
        compare(verdicts("pp"), verdicts("p"))
