"""A judge on labelled traffic: whose verdicts on which records, and when it is asked for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from values import replace
from word_judge import WordJudge, labelled_traffic

from ontopic.config.policy import Policy
from ontopic.data.labels import LabelStore, labels_of
from ontopic.judges.cards.traffic_card import LEAST_LABELS, TrafficLabels
from ontopic.judges.cards.traffic_card import labelled_traffic as measured
from ontopic.judges.judge import Judge
from ontopic.records import Record
from ontopic.state.workspace import Workspace
from ontopic.statistics.correction import raw_share, youden_low
from ontopic.statistics.rates import rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path)


def unasked() -> Judge:
    raise AssertionError("no judge is needed")


def label(store: LabelStore, i: int, answer: str = "good", by: str = "random", version: str = "1") -> None:
    record = Record(
        question=f"q{i}?", answer=answer, id=f"r{i}", model_version=version, asked_at=NOON + i * timedelta(1)
    )
    store.add(record, "pass", by=by)  # type: ignore[arg-type]


def test_without_labels_of_random_traffic_no_judge_is_opened(banking: Policy, workspace: Workspace) -> None:
    assert measured(banking, workspace, judge=unasked) == TrafficLabels()
    store = LabelStore(labels_of(banking, workspace))
    label(store, 1, by="uncertainty")
    label(store, 2, by="feedback")
    store.add(Record(question="of a file?", answer="good"), "pass", by="random")
    assert measured(banking, workspace, judge=unasked) == TrafficLabels()


def test_a_labelled_record_is_judged_once_and_again_where_it_was_unjudged(
    banking: Policy, workspace: Workspace
) -> None:
    judge, store = WordJudge(), LabelStore(labels_of(banking, workspace))
    for i, answer in enumerate(("good", "bad", "?")):
        label(store, i, answer)
    found = measured(banking, workspace, judge=lambda: judge)
    assert [verdict.outcome for verdict in found.verdicts] == ["pass", "fail", "unjudged"]
    assert [record.record_id for record in found.records] == ["r0", "r1", "r2"]
    assert len(found.of("1")) == 2  # of one that is unjudged nothing is known
    label(store, 3)
    assert measured(banking, workspace, judge=lambda: judge).judge_id == "words"
    assert len(judge.asked) == 3 + 2
    other = banking.model_copy(update={"definition": "Something else."})
    measured(other, workspace, judge=lambda: judge)
    assert len(judge.asked) == 3 + 2 + 4  # under other criteria all of them
    path = workspace.judges / "words.traffic.json"
    path.write_text("[]")
    assert len(measured(other, workspace, judge=lambda: judge).verdicts) == 4


def test_the_newest_labels_of_other_versions_fill_up() -> None:
    labels = labelled_traffic((150, 150), (150, 150), version="0")
    times = [record.model_copy(update={"asked_at": NOON + i * timedelta(1)}) for i, record in enumerate(labels.records)]
    older = replace(labels, records=times)
    card = older.card("1")
    assert card and (card.sensitivity.n, card.specificity.n) == (50, 150)
    assert (card.origin, card.judge_id) == ("traffic", "words")
    assert labelled_traffic((100, 100), (50, LEAST_LABELS - 101)).card("1") is None


def test_the_share_that_a_judge_passes_follows_from_its_errors() -> None:
    card = labelled_traffic((90, 100), (80, 100)).card("1")
    assert raw_share(0.85, card) == pytest.approx(0.85 * 0.9 + 0.15 * 0.2)
    assert raw_share(0.85, None) == 0.85


def test_better_than_chance_is_shown_by_a_bound() -> None:
    for right, expected in ((50, False), (55, False), (62, True)):
        card = labelled_traffic((right, 100), (right, 100)).card("1")
        assert card and (youden_low(card) > 0) is expected
    none = labelled_traffic((200, 200), (0, 0)).card("1")
    assert none and none.specificity.n == 0 and youden_low(none) == -1
    assert rate(0, 0).n == 0
