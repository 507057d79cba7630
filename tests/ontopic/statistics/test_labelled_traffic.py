"""The rate by labels of the same traffic: the efficient estimate, its coverage, and the fit of a card."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, qmc

from ontopic.statistics.correction import compatible, corrected, fit_p_value, youden_low
from ontopic.statistics.rates import Rate, rate

OUTCOMES = qmc.Sobol(4, seed=7).random_base2(9)
GRID = tuple(itertools.product((0.5, 0.85, 0.98), (0.6, 0.9, 0.99), (0.6, 0.9, 0.99), (50, 1000), (50, 200, 600)))


def drawn(truth: float, sensitivity: float, specificity: float, n: int, labels: int) -> tuple[np.ndarray, ...]:
    """Passes of the unlabelled records, good ones of the labels, and those of each kind that the judge gets right."""
    x = binom.ppf(OUTCOMES[:, 0], n, truth * sensitivity + (1 - truth) * (1 - specificity))
    good = binom.ppf(OUTCOMES[:, 1], labels, truth)
    a = np.where(good > 0, binom.ppf(OUTCOMES[:, 2], np.maximum(good, 1), sensitivity), 0)
    bad = labels - good
    return x, good, a, np.where(bad > 0, binom.ppf(OUTCOMES[:, 3], np.maximum(bad, 1), specificity), 0)


def coverage(truth: float, sensitivity: float, specificity: float, n: int, labels: int) -> float:
    x, good, a, b = drawn(truth, sensitivity, specificity, n, labels)
    all_ = np.full_like(good, labels)
    kept = compatible(truth, (x, n), sensitivity=(a, good), specificity=(b, labels - good), labelled=(good, all_))
    return float(kept.mean())


def expected(truth: float, sensitivity: float, specificity: float, _: int, labels: int) -> float:
    """The fewer of bad records and of the judge's errors to be expected among the labels."""
    return labels * min(1 - truth, truth * (1 - sensitivity) + (1 - truth) * (1 - specificity))


def test_the_interval_covers_the_truth_in_93_to_97_percent() -> None:
    found = {cell: coverage(*cell) for cell in GRID if expected(*cell) >= 3}
    assert len(found) > 100
    assert {cell: share for cell, share in found.items() if not 0.93 <= share <= 0.975} == {}
    assert float(np.median(list(found.values()))) == pytest.approx(0.95, abs=0.005)
    few = [coverage(*cell) for cell in GRID if expected(*cell) < 3]
    assert min(few) >= 0.925


def outcome(x: int, n: int, a: int, good: int, b: int, bad: int) -> Rate:
    return corrected(rate(x, n), rate(a, good), specificity=rate(b, bad), labelled=rate(good, good + bad))


@pytest.mark.parametrize(
    ("x", "n", "a", "good", "b", "bad"),
    [
        (600, 700, 256, 270, 24, 30),
        (20, 50, 250, 300, 240, 300),
        (400, 400, 45, 45, 3, 5),
        (557, 900, 60, 100, 20, 100),
    ],
)
def test_it_is_the_post_stratified_estimate(x: int, n: int, a: int, good: int, b: int, bad: int) -> None:
    """p mu1 + (1 - p) mu0, of Chen et al. (arXiv 2601.05420)."""
    passed = a + bad - b
    p, labels = (x + passed) / (n + good + bad), good + bad
    value = p * a / passed + (1 - p) * (good - a) / (labels - passed)
    found = outcome(x, n, a, good, b, bad)
    assert found.value == pytest.approx(value, abs=1e-5)
    assert found.low < value < found.high and found.n == n + labels


def test_it_is_narrower_than_the_labels_alone_and_than_with_labels_of_other_traffic() -> None:
    for cell in ((0.9, 0.95, 0.8, 700, 300), (0.95, 0.98, 0.6, 400, 600), (0.5, 0.6, 0.6, 1000, 200)):
        ours, alone, others = 0.0, 0.0, 0.0
        labels = cell[-1]
        for x, good, a, b in zip(*(each[:40].astype(int).tolist() for each in drawn(*cell)), strict=True):
            found, labelled = outcome(x, cell[3], a, good, b, labels - good), rate(good, labels)
            other = corrected(rate(x, cell[3]), rate(a, good), specificity=rate(b, labels - good))
            ours, alone, others = (
                total + share.high - share.low
                for total, share in zip((ours, alone, others), (found, labelled, other), strict=True)
            )
        assert ours < alone and ours < others


def test_a_judge_at_chance_leaves_what_the_labels_say() -> None:
    found, alone = outcome(500, 1000, 50, 100, 50, 100), rate(100, 200)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=1e-3)
    only = corrected(rate(0, 0), rate(90, 100), specificity=rate(0, 0), labelled=rate(100, 100))
    assert only == rate(100, 100)  # without a labelled fail nothing is known of the judge


@pytest.mark.parametrize(
    ("raw", "right", "fits"),
    [
        (rate(573, 591), (475, 509, 281, 309), False),  # real queries and the card of templates
        (rate(573, 591), (557, 567, 8, 24), True),  # and their own labels
        (rate(97, 100), (180, 190, 6, 10), True),
        (rate(150, 1000), (180, 190, 6, 10), True),  # under the 0.4 of bad ones, of which ten labels say little
        (rate(10, 1000), (180, 190, 60, 100), False),
        (rate(0, 0), (180, 190, 6, 10), True),
    ],
)
def test_a_card_fits_where_some_true_rate_explains_what_the_judge_passed(
    raw: Rate, right: tuple[int, int, int, int], fits: bool
) -> None:
    card = SimpleNamespace(sensitivity=rate(*right[:2]), specificity=rate(*right[2:]))
    assert (fit_p_value(raw, card) >= 0.01) is fits


def test_the_errors_of_real_queries_are_better_than_chance() -> None:
    card = SimpleNamespace(sensitivity=rate(557, 567), specificity=rate(8, 24))
    assert youden_low(card) == pytest.approx(0.161, abs=0.001)
