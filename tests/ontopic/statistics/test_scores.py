"""Scores: rates, their intervals, the judge's error taken out, paired comparison."""

from __future__ import annotations

import itertools
import json
import math
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, qmc
from values import replace

from ontopic.records import Outcome, Verdict
from ontopic.statistics.correction import compatible, corrected, labels_to_halve
from ontopic.statistics.pairs import Comparison, compare, detectable_difference, sample_size
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.scores import flat_metrics, score


def verdict(outcome: Outcome, in_scope: bool | None = None, declined: bool | None = None) -> Verdict:
    return Verdict(outcome=outcome, score=None, explanation="", judge_id="judge", in_scope=in_scope, declined=declined)


def verdicts(word: str) -> list[Verdict]:
    """One verdict a letter: p(ass), f(ail), u(njudged)."""
    outcomes: dict[str, Outcome] = {"p": "pass", "f": "fail", "u": "unjudged"}
    return [verdict(outcomes[letter]) for letter in word]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.49016, 0.94332), (50, 100, 0.40383, 0.59617), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0)],
)
def test_a_rate_has_the_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    share = rate(successes, n)
    assert share.value == successes / n
    assert share.n == n
    assert (share.low, share.high) == pytest.approx((low, high), abs=1e-5)


def test_the_rate_of_nothing_is_unknown() -> None:
    share = rate(0, 0)
    assert math.isnan(share.value)
    assert (share.low, share.high, share.n) == (0.0, 1.0, 0)
    assert str(share) == "no records"
    assert json.loads(share.model_dump_json())["value"] is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_a_share_above_one_or_under_zero_is_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        rate(successes, n)


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
    [(0.9, 0.9, 0.8, 400, 120, 120), (0.98, 0.95, 0.9, 100, 60, 40), (0.55, 0.75, 0.7, 1000, 200, 50)],
)
def test_the_interval_is_from_the_least_to_the_greatest_compatible_rate(
    truth: float, sensitivity: float, specificity: float, n: int, passes: int, fails: int
) -> None:
    drawn = zip(*outcomes(truth, sensitivity, specificity, n, passes, fails), strict=True)
    values = []
    for x, a, b in itertools.islice(drawn, 200):
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


def test_scores_count_each_kind_of_record() -> None:
    scores = score(
        [
            verdict("pass", in_scope=True, declined=False),
            verdict("fail", in_scope=True, declined=True),
            verdict("fail", in_scope=True, declined=False),
            verdict("pass", in_scope=False, declined=True),
            verdict("fail", in_scope=False, declined=False),
            verdict("pass"),
        ]
    )
    assert scores.guardrail_score == rate(3, 6)
    assert scores.over_refusal == rate(1, 3)
    assert scores.leak == rate(1, 2)
    assert scores.unjudged == 0


def test_unjudged_never_counts_as_a_fail() -> None:
    judged = [verdict("pass", True, False), verdict("pass", False, True)]
    scores = score([*judged, verdict("unjudged", True, True), verdict("unjudged", False, False)])
    assert scores.unjudged == 2
    assert (scores.guardrail_score, scores.over_refusal, scores.leak) == (rate(2, 2), rate(0, 1), rate(0, 1))
    assert score(verdicts("uuu")).guardrail_score.n == 0


def test_the_tracker_gets_each_number_and_no_nan() -> None:
    flat = flat_metrics(score([verdict("pass", in_scope=True, declined=False)]))
    assert flat["guardrail_score"] == flat["guardrail_score_n"] == 1
    assert flat["over_refusal"] == 0
    assert "leak" not in flat
    assert flat["leak_n"] == 0
    assert not any(math.isnan(value) for value in flat.values())


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


def compared(wins: int, losses: int, n: int) -> Comparison:
    both = "p" * (n - wins - losses)
    return compare(verdicts("f" * wins + "p" * losses + both), verdicts("p" * wins + "f" * losses + both))


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
    for wins in range(n + 1):
        first = float(binom.pmf(wins, n, win))
        if first < 1e-4:
            continue
        for losses in range(n - wins + 1):
            weight = first * float(binom.pmf(losses, n - wins, lose / (1 - win)))
            if weight > 1e-4:
                interval = compared(wins, losses, n)
                seen += weight
                covered += weight * (interval.low <= difference <= interval.high)
    assert seen > 0.97
    assert 0.93 <= covered / seen <= 0.97


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


def width(raw: Rate, sensitivity: Rate, specificity: Rate, passes: int, fails: int) -> float:
    then = corrected(
        raw,
        replace(sensitivity, n=sensitivity.n + passes),
        specificity=replace(specificity, n=specificity.n + fails),
    )
    return then.high - then.low


@pytest.mark.parametrize(
    ("raw", "sensitivity", "specificity"),
    [
        (rate(7000, 10_000), rate(90, 100), rate(80, 100)),
        (rate(3000, 10_000), rate(90, 100), rate(70, 100)),
        (rate(5000, 10_000), rate(40, 50), rate(150, 200)),
    ],
)
def test_the_labels_that_were_named_halve_the_interval(raw: Rate, sensitivity: Rate, specificity: Rate) -> None:
    labels = labels_to_halve(raw, sensitivity, specificity=specificity)
    assert labels is not None
    half = width(raw, sensitivity, specificity, 0, 0) / 2
    assert width(raw, sensitivity, specificity, labels.passes, labels.fails) <= half
    total = labels.passes + labels.fails
    # No split of a tenth fewer would do.
    fewer = round(0.9 * total)
    widths = [width(raw, sensitivity, specificity, p, fewer - p) for p in np.linspace(0, fewer, 41).astype(int)]
    assert min(widths) > half


def test_labels_cannot_halve_an_interval_that_the_sample_makes_wide() -> None:
    assert labels_to_halve(rate(40, 50), rate(900, 1000), specificity=rate(900, 1000)) is None
    assert labels_to_halve(rate(0, 0), rate(9, 10), specificity=rate(9, 10)) is None
    assert labels_to_halve(rate(5, 10), rate(0, 0), specificity=rate(9, 10)) is None


def test_a_judge_at_chance_is_not_helped_by_labels() -> None:
    assert labels_to_halve(rate(500, 1000), rate(50, 100), specificity=rate(50, 100)) is None


def test_a_pair_with_an_unjudged_side_is_left_out() -> None:
    compared = compare(verdicts("fuppf"), verdicts("ppupf"))
    assert (compared.wins, compared.losses, compared.n) == (1, 0, 3)


def test_no_pair_is_no_evidence() -> None:
    compared = compare(verdicts("uu"), verdicts("pf"))
    assert (compared.low, compared.high, compared.p_value, compared.n) == (-1.0, 1.0, 1.0, 0)


def test_comparing_different_numbers_of_questions_is_refused() -> None:
    with pytest.raises(ValueError, match="2 champion verdicts, 1 challenger"):
        compare(verdicts("pp"), verdicts("p"))
