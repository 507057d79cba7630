"""The judge card: known confusions give known numbers."""

from __future__ import annotations

import json
import math

import pytest

from ontopic.judges.card import card_of, judge_card
from ontopic.labelled_data import LabelledRecord
from ontopic.records import Outcome, Verdict
from ontopic.scores import rate


def labelled(label: str | None) -> LabelledRecord:
    return LabelledRecord(question="q", answer="a", label=label)  # type: ignore[arg-type]


def table(*cells: tuple[str | None, Outcome, int]) -> tuple[list[LabelledRecord], list[Verdict]]:
    """Records and verdicts from cells of label, verdict and count."""
    records = [labelled(label) for label, _, count in cells for _ in range(count)]
    return records, [Verdict(said, None, "", "judge") for _, said, count in cells for _ in range(count)]


CONFUSION: list[tuple[str | None, Outcome, int]] = [
    ("pass", "pass", 40),
    ("pass", "fail", 10),
    ("fail", "pass", 5),
    ("fail", "fail", 45),
]


def test_a_known_confusion_gives_known_numbers() -> None:
    card = judge_card("judge", *table(*CONFUSION))
    assert card.accuracy == rate(85, 100)
    assert card.sensitivity == rate(40, 50)
    assert card.specificity == rate(45, 50)
    assert card.unjudged == 0
    # by chance 0.5 * 0.45 + 0.5 * 0.55 = 0.5, so kappa = 0.35 / 0.5; its error 1.96 * sqrt(0.85 * 0.15 / 100) / 0.5
    assert card.kappa.value == pytest.approx(0.7)
    assert (card.kappa.low, card.kappa.high) == pytest.approx((0.7 - 0.13997, 0.7 + 0.13997), abs=1e-4)
    assert card.kappa.n == 100


def test_records_without_label_and_unjudged_ones_count_in_no_share() -> None:
    rest: list[tuple[str | None, Outcome, int]] = [
        (None, "pass", 7),
        (None, "unjudged", 2),
        ("pass", "unjudged", 3),
        ("fail", "unjudged", 4),
    ]
    card, without = judge_card("judge", *table(*CONFUSION, *rest)), judge_card("judge", *table(*CONFUSION))
    assert card.unjudged == 7
    assert (card.accuracy, card.kappa, card.sensitivity, card.specificity) == (
        without.accuracy,
        without.kappa,
        without.sensitivity,
        without.specificity,
    )


def test_an_always_right_judge_has_kappa_one_and_an_always_wrong_one_minus_one() -> None:
    assert judge_card("judge", *table(("pass", "pass", 5), ("fail", "fail", 5))).kappa.value == 1.0
    assert judge_card("judge", *table(("pass", "fail", 5), ("fail", "pass", 5))).kappa.value == -1.0


def test_a_judge_that_always_passes_has_kappa_zero() -> None:
    card = judge_card("judge", *table(("pass", "pass", 30), ("fail", "pass", 10)))
    assert card.accuracy.value == 0.75
    assert card.kappa.value == pytest.approx(0.0)
    assert (card.sensitivity.value, card.specificity.value) == (1.0, 0.0)


def test_nothing_judged_and_one_kind_alone_leave_kappa_unknown() -> None:
    nothing = judge_card("judge", *table(("pass", "unjudged", 3)))
    assert math.isnan(nothing.kappa.value)
    assert nothing.accuracy.n == 0
    assert nothing.unjudged == 3
    one_kind = judge_card("judge", *table(("pass", "pass", 3)))
    assert math.isnan(one_kind.kappa.value)
    assert one_kind.specificity.n == 0
    assert not any(math.isnan(value) for value in nothing.metrics().values())


@pytest.mark.parametrize("cells", [CONFUSION, [("pass", "unjudged", 3)]], ids=["full", "nothing judged"])
def test_a_card_comes_back_from_json_as_it_was(cells: list[tuple[str | None, Outcome, int]]) -> None:
    card = judge_card("judge", *table(*cells))
    again = card_of(json.loads(json.dumps(card.as_dict(), allow_nan=False)))
    assert repr(again) == repr(card)
    assert str(again).startswith("judge        judge\naccuracy ")


def test_the_metrics_are_flat_numbers() -> None:
    metrics = judge_card("judge", *table(*CONFUSION)).metrics()
    assert metrics["accuracy"] == 0.85
    assert metrics["sensitivity_n"] == 50
    assert metrics["unjudged"] == 0
    assert {"kappa_low", "kappa_high", "specificity"} <= metrics.keys()


def test_records_and_verdicts_must_be_equally_many() -> None:
    records, verdicts = table(*CONFUSION)
    with pytest.raises(ValueError, match="shorter"):
        judge_card("judge", records, verdicts[:-1])
