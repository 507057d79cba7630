"""The true difference of two models, from a judge's verdicts on all pairs and a person's labels on some."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ontopic.statistics.two_phase import LabelledPairs, TrueDifference, true_difference

TRUTHS = np.array([(True, True), (True, False), (False, True), (False, False)])
N = 450


def pairs(*cells: tuple[str, str, int]) -> LabelledPairs:
    """Labelled pairs from cells of verdicts and labels, champion and challenger, ``p`` or ``f``, and a count."""
    rows = [
        ([v == "p" for v in verdicts], [label == "p" for label in labels])
        for verdicts, labels, k in cells
        for _ in range(k)
    ]
    return LabelledPairs(verdicts=np.array([v for v, _ in rows]), labels=np.array([t for _, t in rows]))


def drawn(
    random: np.random.Generator, truth: tuple[float, ...], specificity: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Truths and verdicts of one gate, champion and challenger; the judge's sensitivity is 0.95."""
    true = TRUTHS[random.choice(4, N, p=truth)]
    right = np.where(true, 0.95, np.array(specificity))
    return true, np.where(random.random((N, 2)) < right, true, ~true)


def estimated(random: np.random.Generator, true: NDArray[np.bool_], said: NDArray[np.bool_], n: int) -> TrueDifference:
    """With ``n`` random pairs of either kind labelled."""
    differ = said[:, 0] != said[:, 1]
    chosen = np.concatenate(
        [random.permutation(np.flatnonzero(differ))[:n], random.permutation(np.flatnonzero(~differ))[:n]]
    )
    wins = int((said[:, 1] & ~said[:, 0]).sum())
    return true_difference(
        LabelledPairs(verdicts=said[chosen], labels=true[chosen]),
        wins=wins,
        losses=int(differ.sum()) - wins,
        agreeing=int((~differ).sum()),
    )


def test_a_known_table_gives_known_numbers() -> None:
    # Of 20 wins half are true; of 10 losses all; of 60 pairs that agree one in twenty hides a loss; 10 are the same.
    labelled = pairs(
        ("fp", "fp", 10), ("fp", "pp", 10), ("pf", "pf", 10), ("pp", "pp", 16), ("pp", "pf", 1), ("ff", "ff", 3)
    )
    found = true_difference(labelled, wins=20, losses=10, agreeing=60, same=10)
    assert found.improvement.value == pytest.approx(0.2 * 0.5 - 0.1 - 0.6 / 20)
    assert found.improvement.n == 50
    # Of the challenger's failures the judge sees 10 losses and the 3 in 20 of 60 that fail with the champion's.
    assert found.challenger.specificity.value == pytest.approx((10 + 9) / (10 + 9 + 3))
    assert found.champion.specificity.value == 1.0
    assert found.champion.sensitivity.value == pytest.approx((10 + 51) / (10 + 51 + 10))
    assert found.challenger.specificity.n == 14


def test_a_judge_without_errors_is_confirmed() -> None:
    labelled = pairs(("fp", "fp", 30), ("pf", "pf", 30), ("pp", "pp", 50), ("ff", "ff", 10))
    found = true_difference(labelled, wins=60, losses=30, agreeing=360)
    assert found.improvement.value == pytest.approx(30 / 450)
    assert found.champion.specificity.value == found.challenger.sensitivity.value == 1.0
    assert 0.5 < found.champion.specificity.low < 1.0 and found.champion.specificity.high == 1.0
    assert (found.p_sensitivity, found.p_specificity, found.differ) == (1.0, 1.0, False)


def test_without_labels_nothing_is_claimed() -> None:
    none = LabelledPairs(verdicts=np.zeros((0, 2), bool), labels=np.zeros((0, 2), bool))
    found = true_difference(none, wins=60, losses=20, agreeing=370)
    assert found.improvement.low < -0.5 and found.improvement.high > 0.5
    assert math.isnan(found.challenger.specificity.value) and not found.differ
    assert true_difference(none, wins=0, losses=0, agreeing=0).improvement.n == 0


def test_labels_of_one_kind_do_not_stand_for_the_other() -> None:
    """Where the failures that the judge overlooks hide in pairs on which it sees no difference."""
    found = true_difference(pairs(("fp", "fp", 30), ("pf", "pf", 30)), wins=60, losses=20, agreeing=370)
    assert found.improvement.low < 0 < found.improvement.high


@pytest.mark.parametrize("specificity", [0.9, 0.8, 0.7, 0.6])
def test_an_equal_challenger_whose_failures_are_overlooked_is_not_shown_to_be_better(specificity: float) -> None:
    random, runs = np.random.default_rng(3), 300
    fooled = shown = covered = 0
    for _ in range(runs):
        true, said = drawn(random, (0.85, 0.05, 0.05, 0.05), (0.9, specificity))
        wins, losses = int((said[:, 1] & ~said[:, 0]).sum()), int((said[:, 0] & ~said[:, 1]).sum())
        better = wins - losses > 1.96 * math.sqrt(wins + losses)
        found = estimated(random, true, said, 60)
        fooled += better
        shown += better and found.improvement.low > 0 and not found.differ
        covered += found.improvement.low <= 0 <= found.improvement.high
    assert shown / runs <= 0.05
    assert covered / runs >= 0.92
    assert fooled / runs >= (0.2 if specificity == 0.6 else 0.0)  # the judge alone is


def test_a_better_challenger_is_still_shown() -> None:
    random, runs = np.random.default_rng(3), 200
    found = [
        estimated(random, *drawn(random, (0.80, 0.02, 0.12, 0.06), (0.9, 0.9)), 60).improvement for _ in range(runs)
    ]
    assert np.mean([each.low > 0 for each in found]) >= 0.85
    assert np.mean([each.low <= 0.1 <= each.high for each in found]) >= 0.92
    assert np.mean([each.value for each in found]) == pytest.approx(0.1, abs=0.01)
