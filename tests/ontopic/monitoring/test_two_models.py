"""Windows of two registered models in one file: the same versions asked at the same moments, and none mixed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from word_judge import CARD, LIMITS, WordJudge

from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.window import Cut, Window, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HOURLY = Cut(length=HOUR, records=10, lateness=5 * MINUTE)
TWOS = Cut(length=None, records=2, lateness=5 * MINUTE)
BANKING, TRAVEL = "ontopic-banking", "ontopic-travel"
Stores = tuple[TrafficStore, WindowStore]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Stores]]:
    found = {
        model: (TrafficStore(tmp_path / "traffic.db", model), WindowStore(tmp_path / "windows.db", model))
        for model in (BANKING, TRAVEL)
    }
    yield found
    for traffic, windows in found.values():
        traffic.close()
        windows.close()


def ask(traffic: TrafficStore, *minutes: float, answer: str = "good") -> list[str]:
    return [
        traffic.add(Record(question="q?", answer=answer, model_version="1", asked_at=NOON + m * MINUTE))
        for m in minutes
    ]


def turn(stores: Stores, minutes: float, cut: Cut = HOURLY) -> list[Window]:
    traffic, windows = stores
    now, closed = NOON + minutes * MINUTE, []
    windows.take_in(traffic, cut, now=now)
    for window in windows.due(cut, now):
        judged = judge_records(windows, traffic.records(ids=windows.ids(window)), judge=WordJudge(), what="a window")
        result = window_result(judged, CARD, limits=LIMITS, counts=windows.counts(window), revision=window.revision)
        closed.append(windows.close_window(window, result, now=now))
    return closed


def sizes(closed: list[Window]) -> list[tuple[str, int]]:
    return [(f"{window.start:%H:%M}", window.result.n) for window in closed if window.result]


@pytest.mark.parametrize("cut", [HOURLY, TWOS])
def test_each_takes_in_closes_and_counts_its_own(stores: dict[str, Stores], cut: Cut) -> None:
    banking, travel = stores[BANKING], stores[TRAVEL]
    ids = ask(banking[0], 1, 2)
    others = ask(travel[0], 1, 2, answer="bad")
    (first,) = turn(banking, 70, cut)
    assert travel[1].closed(-1) == [] and travel[1].waiting() == 0
    (second,) = turn(travel, 71, cut)  # its cursor is its own: the other's look has not used its records up
    assert (first.start, first.model_version, first.label) == (second.start, second.model_version, second.label)
    assert first.id != second.id
    assert [each.result and each.result.status for each in (first, second)] == ["ok", "suspected"]
    assert (banking[1].ids(first), travel[1].ids(second)) == (ids, others)
    assert [window.id for window in banking[1].closed(9)] == [first.id]
    assert (banking[1].holding(others), travel[1].holding(ids)) == ([], [])
    assert travel[1].is_first(second) and banking[1].is_first(first)
    assert {key: n for key, n in travel[1].verdict_counts().items() if n} == {("fail", "1"): 2}


def test_a_late_record_reopens_its_own_window(stores: dict[str, Stores]) -> None:
    for model in (BANKING, TRAVEL):
        ask(stores[model][0], 1)
        turn(stores[model], 70)
    ask(stores[TRAVEL][0], 2)
    assert turn(stores[BANKING], 80) == turn(stores[TRAVEL], 80) == []
    assert turn(stores[BANKING], 90) == []
    assert sizes(turn(stores[TRAVEL], 90)) == [("12:00", 2)]


def test_forgetting_one_models_verdicts_leaves_the_others(stores: dict[str, Stores]) -> None:
    for model in (BANKING, TRAVEL):
        ask(stores[model][0], 1)
        turn(stores[model], 70)
    stores[TRAVEL][1].forget([record.id for record in stores[BANKING][0].records()])
    kept = {model: windows.judged(windows.closed(-1), traffic).verdicts for model, (traffic, windows) in stores.items()}
    assert [len(kept[model]) for model in (BANKING, TRAVEL)] == [0, 1]


def test_windows_that_are_put_are_of_their_own_model_alone(stores: dict[str, Stores]) -> None:
    for traffic, windows in stores.values():
        ids = ask(traffic, 1, 2)
        windows.put(traffic.records(ids=ids), 2)
        assert [len(windows.ids(window)) for window in windows.holding(ids)] == [2]
    with pytest.raises(ValueError, match=r"'ontopic-banking', and this traffic is of .'ontopic-travel'"):
        stores[BANKING][1].put(stores[TRAVEL][0].records(), 2)
    with pytest.raises(ValueError, match="'ontopic-banking', and this traffic is of"):
        stores[BANKING][1].take_in(stores[TRAVEL][0], HOURLY, now=NOON)


def test_the_loops_windows_and_those_that_are_watched_hold_no_record_twice(stores: dict[str, Stores]) -> None:
    traffic, windows = stores[BANKING]
    asked = ask(traffic, 1, 2, 3)
    windows.put(traffic.records(ids=asked), 2)  # by the loop, which closes them
    watched = ask(traffic, 2, 3)  # by customers, at the same moments
    closed = turn(stores[BANKING], 70)
    by_watch = [record_id for window in closed if not windows.was_put(window) for record_id in windows.ids(window)]
    by_loop = [record_id for window in windows.holding(asked) for record_id in windows.ids(window)]
    assert sorted(by_watch) == sorted(watched)
    assert by_loop == asked
