"""Which records people are asked to label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ontopic.data.drawing import drawable, most_informative, random_order, records_to_label, without_label
from ontopic.data.labelled import LabelledRecord
from ontopic.data.labels import LabelStore
from ontopic.data.same_question import near_duplicates
from ontopic.records import Record, Verdict

RECORDS = [
    Record(question=f"question number {i}, on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(200)
]


def scored(*scores: float | None) -> list[Verdict]:
    return [
        Verdict(
            outcome="unjudged" if s is None else "pass" if s >= 0.5 else "fail",
            score=s,
            explanation="",
            judge_id="rule",
            cause="broken" if s is None else None,
        )
        for s in scores
    ]


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels" / "banking.jsonl")


def test_the_records_that_the_judge_is_least_sure_of_come_first() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "weather", "poems", "mortgages")]
    assert most_informative(records, [scored(0.99, 0.55, 0.2, 0.02, 0.47)], n=3) == [4, 1, 2]


def test_records_on_which_judges_disagree_come_before_those_on_which_they_agree() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "weather")]
    assert most_informative(records, [scored(0.9, 0.95, 0.1), scored(0.9, 0.05, 0.2)], n=3) == [1, 2, 0]


def test_the_chosen_records_hold_no_near_duplicates() -> None:
    texts = ["How do I block my card?", "how do i block my card", "How do I block my card??", "What is a mortgage?"]
    records = [Record(question=text, answer=f"answer {i}") for i, text in enumerate(texts * 300)]
    chosen = most_informative(records, [scored(*[0.5 + i / 10_000 for i in range(len(records))])], n=10)
    assert chosen == [0, 3]
    questions = [records[i].question for i in chosen]
    assert near_duplicates(questions[:1], questions[1:]) == []


def test_what_no_judge_could_judge_is_left_out() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "")]
    assert most_informative(records, [scored(None, 0.9, None)], n=3) == [1]
    assert most_informative([], [[]], n=3) == []
    with pytest.raises(ValueError, match="3 records"):
        most_informative(records, [scored(0.5)], n=1)


def test_a_question_is_drawn_for_the_card_or_for_training_and_never_for_both() -> None:
    again = [Record(question=r.question.upper() + "!", answer="another answer") for r in RECORDS]
    card = {r.question.lower().strip("!?") for r in drawable(RECORDS + again, "random")}
    training = {r.question.lower().strip("!?") for r in drawable(RECORDS + again, "uncertainty")}
    assert card.isdisjoint(training)
    assert len(card) + len(training) == len(RECORDS)
    assert 70 < len(card) < 130
    assert (
        drawable(
            [
                Record(question=" ", answer="a"),
                Record(question="x" * 20_001, answer="a"),
                Record(question="\ud800", answer="a"),
            ],
            "random",
        )
        == []
    )


def test_the_random_sample_is_spread_over_time_and_goes_on_where_it_stopped(store: LabelStore) -> None:
    order = [RECORDS.index(record) for record in random_order(RECORDS)]
    assert sorted(order) == list(range(200)) != order
    for n in (10, 50, 100):  # as many of each tenth of the time
        assert [sum(i // 20 == tenth for i in order[:n]) for tenth in range(10)] == [n // 10] * 10
    assert [RECORDS.index(record) for record in random_order(RECORDS)] == order
    first = records_to_label(RECORDS, store, by="random", n=10, judge=unasked).records
    for record in first[:4]:
        store.add(record, "pass", by="random")
    assert records_to_label(RECORDS, store, by="random", n=6, judge=unasked).records == first[4:]


def unasked(records: Sequence[Record]) -> list[Verdict]:
    raise AssertionError("no judge is needed")


def test_at_random_a_sample_of_one_half_without_a_label_is_asked_for_to_measure(store: LabelStore) -> None:
    half = drawable(RECORDS, "random")
    first = records_to_label(RECORDS, store, by="random", n=5, judge=unasked)
    assert first.records == random_order(half)[:5]
    assert first.notes == []
    assert str(first) == (
        "5 of 200 records, sampled at random over time: their labels say how the judge errs on this traffic, and "
        "correct its score; one half of the questions is left to --by uncertainty"
    )
    for record in first.records:
        store.add(record, "pass", by="random")
    assert not {r.id for r in first.records} & {
        r.id for r in records_to_label(RECORDS, store, by="random", n=200, judge=unasked).records
    }


def test_by_uncertainty_the_judge_is_asked_about_the_other_half_without_scopes(store: LabelStore) -> None:
    records = [record.model_copy(update={"in_scope": True}) for record in RECORDS]
    half, asked = drawable(records, "uncertainty"), list[Record]()

    def judge(given: Sequence[Record]) -> list[Verdict]:
        asked.extend(given)
        return scored(*[0.5 if record.question == half[7].question else 0.99 for record in given])

    chosen = records_to_label(records, store, by="uncertainty", n=1, judge=judge)
    assert [r.question for r in asked] == [r.question for r in half]
    assert {r.in_scope for r in asked} == {None}
    assert chosen.records == [half[7]]
    assert "1 of 200 records, of which the judge is least sure: their labels go to the training split" in str(chosen)


def test_what_got_feedback_is_asked_for_in_its_order_with_what_was_said_of_it(store: LabelStore) -> None:
    notes = {record.id: f"thumb down {record.id}" for record in RECORDS}
    chosen = records_to_label(RECORDS[::-1], store, by="feedback", n=3, judge=unasked, notes=notes)
    assert chosen.records == drawable(RECORDS[::-1], "feedback")[:3]
    assert chosen.notes == [f"thumb down {record.id}" for record in chosen.records]
    assert str(chosen).endswith("never into the card; one half of the questions is left to --by random")


def test_rows_that_carry_a_label_are_not_asked_for_again() -> None:
    rows = [
        LabelledRecord(question="q1", answer="a", label="pass"),
        LabelledRecord(question="q2", answer="a", in_scope=True),
    ]
    assert without_label(rows) == [Record(question="q2", answer="a", in_scope=True)]
