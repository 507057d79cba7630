"""Champion and challenger on the same questions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from outcomes import compared, verdicts
from scipy.stats import binom

from ontopic.statistics.pairs import compare


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
    win, lose = (discordant + difference) / 2, (discordant - difference) / 2
    covered = seen = 0.0
    for wins, first in enumerate(binom.pmf(np.arange(n + 1), n, win)):
        weights = first * binom.pmf(np.arange(n - wins + 1), n - wins, lose / (1 - win))
        for losses in np.flatnonzero(weights > 1e-6).tolist():
            interval = compared(wins, losses, n)
            seen += weights[losses]
            covered += weights[losses] * (interval.low <= difference <= interval.high)
    assert seen > 0.999
    assert covered >= 0.93 and covered + (1 - seen) <= 0.97  # whatever the rest does


def test_a_pair_with_an_unjudged_side_is_left_out() -> None:
    compared = compare(verdicts("fuppf"), verdicts("ppupf"))
    assert (compared.wins, compared.losses, compared.n) == (1, 0, 3)


def test_no_pair_is_no_evidence() -> None:
    compared = compare(verdicts("uu"), verdicts("pf"))
    assert (compared.low, compared.high, compared.p_value, compared.n) == (-1.0, 1.0, 1.0, 0)


def test_comparing_different_numbers_of_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="2 champion verdicts, 1 challenger"):
        compare(verdicts("pp"), verdicts("p"))
