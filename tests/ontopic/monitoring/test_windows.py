"""Windows: cut by time and by count, late records, only what is new is judged, and what becomes of each."""

from __future__ import annotations

import json
import math
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from loopback import ROOT
from values import replace
from word_judge import CARD, LIMITS, WordJudge, labelled_traffic

from ontopic.errors import UserError
from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.tables import MEMBERS
from ontopic.monitoring.window import Cut, Window, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import rate
from ontopic.traffic.store import TrafficStore
from serving.window_metrics import WindowMetrics

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HOURLY = Cut(length=HOUR, records=10, lateness=5 * MINUTE)
TENS = Cut(length=None, records=10, lateness=5 * MINUTE)
OLD_TABLES = (ROOT / "tests" / "data" / "windows-0.1.sql").read_text()


@pytest.fixture
def windows(tables_at: Path | str) -> Iterator[WindowStore]:
    with WindowStore(tables_at, MODEL) as store:
        yield store


@pytest.fixture
def traffic(tables_at: Path | str) -> Iterator[TrafficStore]:
    beside = tables_at.with_name("traffic.db") if isinstance(tables_at, Path) else tables_at
    with TrafficStore(beside, MODEL) as store:
        yield store


def ask(traffic: TrafficStore, *minutes: float, answer: str = "good", version: str = "1") -> list[str]:
    """A record at each of these minutes after noon; returns their ids."""
    record = Record(question="q?", answer=answer, model_version=version)
    asked = [record.model_copy(update={"asked_at": NOON + m * MINUTE, "latency_s": m / 100}) for m in minutes]
    return [traffic.add(each) for each in asked]


def turn(
    windows: WindowStore, traffic: TrafficStore, judge: WordJudge, minutes: float, cut: Cut = HOURLY
) -> list[Window]:
    """What closes at so many minutes after noon."""
    now = NOON + timedelta(minutes=minutes)
    windows.take_in(traffic, cut, now=now)
    return [close(windows, window, traffic, judge=judge, cut=cut, now=now) for window in windows.due(cut, now)]


def close(
    windows: WindowStore, window: Window, traffic: TrafficStore, *, judge: WordJudge, cut: Cut, now: datetime
) -> Window:
    records = traffic.records(ids=windows.ids(window, cut.sampling_rate))
    judged = judge_records(windows, records, judge=judge, what=window.label)
    counts = windows.counts(window)
    result = window_result(
        judged, CARD, limits=LIMITS, counts=counts, labels=labelled_traffic(), revision=window.revision
    )
    return windows.close_window(window, result, now=now)


def sizes(closed: Sequence[Window]) -> list[tuple[str, int]]:
    return [(f"{window.start:%H:%M}", window.result.n) for window in closed if window.result]


def test_records_of_a_machine_whose_clock_is_behind_are_taken_in_too(
    windows: WindowStore, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored since the last look is known by PostgreSQL's clock, not by those of the machines that serve."""

    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - HOUR

    with TrafficStore(postgres_database, MODEL) as traffic:
        ask(traffic, 1)
        assert windows.take_in(traffic, TENS, now=NOON + HOUR) == 1
        monkeypatch.setattr("ontopic.traffic.rows.datetime", Behind)
        ask(traffic, 2)
        traffic.add_many([Record(question="q?", answer="a", model_version="1", asked_at=NOON)])
        assert windows.take_in(traffic, TENS, now=NOON + HOUR) == 2


def test_windows_of_fixed_length_close_by_event_time(windows: WindowStore, traffic: TrafficStore) -> None:
    judge = WordJudge()
    ask(traffic, 59, 0, 61, 130)  # in no order
    assert sizes(turn(windows, traffic, judge, 64)) == []  # within the lateness
    assert sizes(turn(windows, traffic, judge, 65)) == [("12:00", 2)]
    assert sizes(turn(windows, traffic, judge, 65)) == []
    ask(traffic, 119)  # not late: its window is open
    assert sizes(turn(windows, traffic, judge, 185)) == [("13:00", 2), ("14:00", 1)]
    assert sizes(windows.closed(9)) == [("12:00", 2), ("13:00", 2), ("14:00", 1)]
    assert [window.state for window in windows.closed(9)] == ["closed"] * 3
    assert windows.waiting() == 0
    assert len(judge.asked) == len(set(judge.asked)) == 5


@pytest.mark.parametrize("cut", [HOURLY, TENS, Cut(length=timedelta(days=7), lateness=MINUTE, records=10)])
def test_a_false_time_holds_nothing_up(windows: WindowStore, traffic: TrafficStore, cut: Cut) -> None:
    judge, now = WordJudge(), datetime.now(UTC)
    for time, version in ((datetime.max, "1"), (datetime(2099, 1, 1), "2"), (datetime.min, "1")):
        record = Record(question="q?", answer="good", model_version=version, asked_at=time.replace(tzinfo=UTC))
        traffic.add(record)
    ask(traffic, *range(20))
    taken_in_before = {"record_id": "r", "model_version": "1", "asked_at": datetime.min, "late": False, "counted": True}
    with windows._engine.begin() as connection:
        connection.execute(MEMBERS.insert(), taken_in_before)
    for _ in range(2):
        closed = turn(windows, traffic, judge, (now - NOON) / MINUTE, cut)
    assert closed == []
    assert sum(window.result.n for window in windows.closed(9) if window.result) == 20
    assert (windows.closed(9)[0].start.year, windows.closed(9)[-1].end.year) == (2026, 2026)
    assert windows.waiting() == 0  # of the true ones


def test_windows_of_n_records_close_when_they_are_full(windows: WindowStore, traffic: TrafficStore) -> None:
    judge = WordJudge()
    ask(traffic, *range(9))
    assert turn(windows, traffic, judge, 60, TENS) == []
    ask(traffic, 9, 9, *range(10, 25))  # two at the same time stay together
    closed = turn(windows, traffic, judge, 60, TENS)
    assert sizes(closed) == [("12:00", 11), ("12:10", 10)]
    assert (closed[0].end, closed[1].start) == (NOON + 9 * MINUTE, NOON + 10 * MINUTE)
    assert windows.waiting() == 5
    ask(traffic, 9.5)  # between two windows: it belongs to the earlier
    turn(windows, traffic, judge, 60, TENS)
    assert sizes(turn(windows, traffic, judge, 65, TENS)) == [("12:00", 12)]
    assert windows.waiting() == 5


def test_versions_have_windows_of_their_own(windows: WindowStore, traffic: TrafficStore) -> None:
    judge = WordJudge()
    ask(traffic, 1, 2, version="1")
    ask(traffic, 3, version="2")
    assert [(w.model_version, w.result and w.result.n) for w in turn(windows, traffic, judge, 70)] == [
        ("1", 2),
        ("2", 1),
    ]
    assert [w.label for w in windows.closed(5, "2")] == ["version 2, 2026-03-01 12:00:00"]


@pytest.mark.parametrize("cut", [HOURLY, replace(TENS, records=2)])
def test_late_records_reopen_their_window_once(windows: WindowStore, traffic: TrafficStore, cut: Cut) -> None:
    judge = WordJudge()
    ask(traffic, 1, 2)
    (first,) = turn(windows, traffic, judge, 70, cut)
    assert first.result
    assert (first.result.status, first.result.revision) == ("ok", 1)
    late = ask(traffic, 1.5, 1.6, answer="bad")
    assert turn(windows, traffic, judge, 71, cut) == []  # it waits for more of them
    late += ask(traffic, 1.7, answer="bad")
    assert turn(windows, traffic, judge, 75, cut) == []
    (again,) = turn(windows, traffic, judge, 76, cut)
    assert again.result
    assert (again.id, again.state, again.result.revision) == (first.id, "final", 2)
    assert (again.result.n, again.result.late, again.result.too_late) == (5, 3, 0)
    assert again.result.scores.guardrail_score == rate(2, 5)
    assert again.result.score == corrected(rate(2, 5), CARD.sensitivity, specificity=CARD.specificity)
    assert again.result.score.value != again.result.scores.guardrail_score.value
    assert sorted(judge.asked[2:]) == sorted(late)  # the others were judged already
    ask(traffic, 1.8)
    assert turn(windows, traffic, judge, 500, cut) == []
    assert len(judge.asked) == 5
    assert windows.waiting() == 0


def test_what_was_unjudged_or_judged_by_another_is_asked_again(windows: WindowStore, traffic: TrafficStore) -> None:
    judge = WordJudge()
    ask(traffic, 1, answer="good")
    (unsure,) = ask(traffic, 2, answer="?")
    (first,) = turn(windows, traffic, judge, 70)
    assert first.result
    assert first.result.unjudged_share == 0.5
    ask(traffic, 3)
    turn(windows, traffic, judge, 71)
    turn(windows, traffic, judge, 80)
    assert judge.asked.count(unsure) == 2
    ask(traffic, 62)
    assert len(turn(windows, traffic, judge, 130)) == 1
    ids, other = windows.ids(first), WordJudge("others")
    judge_records(windows, traffic.records(ids=ids), judge=other, what="the first window")
    assert other.asked == ids
    assert set(windows.verdicts(ids, "others")) == set(ids)
    assert windows.verdicts(ids, "words") == {}


def test_a_window_that_nobody_could_judge_is_unknown(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, 1, answer="?")
    (window,) = turn(windows, traffic, WordJudge(), 70)
    assert window.result
    assert (window.result.status, window.result.unjudged_share) == ("unknown", 1.0)
    (kept,) = windows.closed(1)
    assert kept.result
    assert (kept.id, kept.state, kept.result.scores.unjudged) == (window.id, "closed", 1)
    assert math.isnan(kept.result.scores.guardrail_score.value)


def test_a_sample_is_judged_and_says_what_it_costs(windows: WindowStore, traffic: TrafficStore) -> None:
    judge = WordJudge()
    answers = ["good"] * 9 + ["bad"]
    for i in range(400):
        ask(traffic, i / 10, answer=answers[i % 10])
    (window,) = turn(windows, traffic, judge, 70, replace(HOURLY, sampling_rate=0.25))
    result = window.result
    assert result
    assert result.sampled == len(judge.asked) == result.scores.guardrail_score.n
    assert 60 < result.sampled < 140
    assert (result.n, result.prompt_tokens) == (400, 0)
    assert 1.6 < result.width / result.width_unsampled < 2.4  # a quarter of the records: twice the interval
    assert result.latency_s[0] < result.latency_s[1]


def test_traffic_from_before_is_left_out(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, -3000, 1)
    now = NOON + 2 * HOUR
    assert windows.take_in(traffic, HOURLY, now=now, since=NOON) == 1
    ask(traffic, -2000, 2)
    assert windows.take_in(traffic, HOURLY, now=now, since=None) == 1
    assert len(windows.due(HOURLY, now)) == 1


def test_any_order_of_arrival_gives_the_same_windows(tmp_path: Path) -> None:
    minutes = [m * 7.5 for m in range(40)]
    found = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(minutes, len(minutes))
        with (
            TrafficStore(tmp_path / f"t{seed}.db", MODEL) as traffic,
            WindowStore(tmp_path / f"w{seed}.db", MODEL) as windows,
        ):
            for start in range(0, 40, 8):  # stored while time passes, but all within the lateness
                ask(traffic, *shuffled[start : start + 8])
                windows.take_in(traffic, HOURLY, now=NOON)
            found.append(sizes(turn(windows, traffic, WordJudge(), 400)))
    assert found[0] == found[1] == found[2]
    assert sum(n for _, n in found[0]) == 40


def test_records_that_are_put_are_cut_in_order_and_the_last_window_may_be_shorter(
    windows: WindowStore, traffic: TrafficStore
) -> None:
    ids = ask(traffic, 5, 3, 1, 2, 4, 4, 6, 7)  # two at the same time stay together
    windows.put(traffic.records(ids=ids), 4)
    found = windows.holding(ids)
    assert [(f"{w.start:%H:%M}", f"{w.end:%H:%M}", w.state) for w in found] == [
        ("12:01", "12:04", "due"),
        ("12:05", "12:07", "due"),
    ]
    assert [len(windows.ids(window)) for window in found] == [5, 3]
    windows.put(traffic.records(ids=ids), 4)
    assert windows.holding(ids) == found
    assert all(windows.was_put(window) for window in found)


def test_versions_that_are_put_together_have_windows_of_their_own(windows: WindowStore, traffic: TrafficStore) -> None:
    ids = ask(traffic, 1, 3, version="1") + ask(traffic, 2, 4, version="2")
    windows.put(traffic.records(ids=ids), 10)
    assert [(w.model_version, len(windows.ids(w))) for w in windows.holding(ids)] == [("1", 2), ("2", 2)]


@pytest.mark.parametrize("cut", [HOURLY, replace(TENS, records=2)])
def test_watching_goes_on_as_if_nothing_had_been_put(windows: WindowStore, traffic: TrafficStore, cut: Cut) -> None:
    judge = WordJudge()
    watched = ask(traffic, 1, 2)
    assert sizes(turn(windows, traffic, judge, 70, cut)) == [(f"12:0{0 if cut.length else 1}", 2)]
    put = ask(traffic, 71, 72, 73)
    windows.put(traffic.records(ids=put), 3)
    (given,) = windows.holding(put)
    close(windows, given, traffic, judge=judge, cut=cut, now=NOON + 74 * MINUTE)
    # These were asked before and while the other records were: neither is late.
    watched += ask(traffic, 61, 71.5)
    assert turn(windows, traffic, judge, 75, cut) == []
    (later,) = turn(windows, traffic, judge, 200, cut)
    assert (later.state, windows.ids(later), windows.was_put(later)) == ("closed", watched[2:], False)
    assert [w.state for w in windows.closed(9)] == ["closed"] * 3
    assert [w.result and w.result.n for w in windows.holding(put)] == [3]
    assert sorted(judge.asked) == sorted(put + watched)


def test_what_is_watched_already_stays_in_its_window(windows: WindowStore, traffic: TrafficStore) -> None:
    watched = ask(traffic, 1, 2)
    turn(windows, traffic, WordJudge(), 70)
    waiting, new = ask(traffic, 61), ask(traffic, 62)
    windows.take_in(traffic, HOURLY, now=NOON + 70 * MINUTE)
    assert windows.forget([]) == windows.forget(["of no record"]) == 0
    assert windows.waiting() == 2
    windows.put(traffic.records(ids=watched + waiting + new), 9)
    assert windows.waiting() == 0
    first, second = windows.holding(watched + waiting + new)
    assert (windows.ids(first), windows.ids(second)) == (watched, waiting + new)
    assert [windows.was_put(window) for window in (first, second)] == [False, True]


def test_windows_that_were_put_get_forgotten_records_back(windows: WindowStore, traffic: TrafficStore) -> None:
    ids = ask(traffic, *range(6))
    windows.put(traffic.records(ids=ids), 3)
    before = windows.holding(ids)
    assert windows.forget(ids) == 6
    assert windows.holding(ids) == []
    windows.put(traffic.records(ids=ids), 3)
    assert windows.holding(ids) == before


@pytest.mark.parametrize("tables_at", ["sqlite"], indirect=True)
def test_a_store_of_the_version_before_opens_and_goes_on(tmp_path: Path, traffic: TrafficStore) -> None:
    ids = ask(traffic, 1, 2)
    nothing = {"value": math.nan, "low": 0.0, "high": 1.0, "n": 0}
    result = {
        "status": "unknown",
        "scores": {"guardrail_score": nothing, "over_refusal": nothing, "leak": nothing, "unjudged": 2},
        "corrected": nothing,
        "threshold": 0.9,
        "judge_id": "words",
        **{"n": 2, "late": 0, "too_late": 0, "sampled": 2, "width": 1.0, "width_unsampled": 1.0},
        **{"latency_s": [0.01, 0.02], "prompt_tokens": 3, "completion_tokens": 4, "revision": 1, "report": "p.html"},
        "drift": {"score": 0.5, "detected": False, "grown": [["cards", 0.1, 0.2]]},
    }
    assert "NaN" in json.dumps(result)  # as it was written
    connection = sqlite3.connect(tmp_path / "windows.db")
    connection.executescript(OLD_TABLES)
    times = ("2026-03-01 12:00:00.000000", "2026-03-01 13:00:00.000000")
    row = (1, "1", *times, "closed", None, "2026-03-01 13:10:00.000000", json.dumps(result))
    connection.execute("INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    for i, record_id in enumerate(ids, start=1):
        asked_at = f"2026-03-01 12:0{i}:00.000000"
        verdict = '{"outcome": "unjudged", "score": null, "explanation": "", "judge_id": "words", "cause": "no word"}'
        member = (record_id, "1", asked_at, 1, 0, 1, "words", verdict)
        connection.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?)", member)
    until = (traffic.last_stored() or NOON).isoformat()
    for kept in (("since", "0001-01-01T00:00:00+00:00"), ("stored_until", until)):
        connection.execute("INSERT INTO kept VALUES (?, ?)", kept)
    connection.commit()
    with closing(connection), WindowStore(tmp_path / "windows.db", MODEL) as windows:
        assert (windows.closed(5), windows.unnamed()) == ([], 5)  # a window, two members, two cursors
        assert (windows.adopt(MODEL), windows.unnamed()) == (5, 0)
        (old,) = windows.closed(5)
        assert old.result and old.result.drift and math.isnan(old.result.score.value)
        assert (old.result.status, old.result.drift.grown) == ("unknown", [("cards", 0.1, 0.2)])
        assert windows.judged([old], traffic).verdicts[0].cause == "no word"
        ask(traffic, 3, 61)
        closed = turn(windows, traffic, WordJudge(), 190)
        assert sizes(closed) == [("13:00", 1)]
        assert sizes(turn(windows, traffic, WordJudge(), 200)) == [("12:00", 3)]
        assert not windows.was_put(old)


def test_the_first_closed_window_of_each_version_is_known(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, 1, 61, version="1")
    ask(traffic, 121, version="2")
    turn(windows, traffic, WordJudge(), 190)
    assert [windows.is_first(window) for window in windows.closed(9)] == [True, False, True]


def test_verdicts_are_forgotten_and_windows_stay(windows: WindowStore, traffic: TrafficStore) -> None:
    first_asked, _ = ask(traffic, 1, 70)
    turn(windows, traffic, WordJudge(), 140)
    windows.forget([first_asked])
    first, second = windows.closed(2)
    assert len(windows.judged([first], traffic).records) == 0
    assert len(windows.judged([first, second], traffic).verdicts) == 1
    assert first.result


def test_verdicts_are_counted_by_outcome_and_version(
    windows: WindowStore, traffic: TrafficStore, tables_at: Path | str
) -> None:
    ask(traffic, 1, 2, 70, version="1")
    ask(traffic, 3, answer="bad", version="1")
    ask(traffic, 4, answer="?", version="evil\n")
    turn(windows, traffic, WordJudge(), 140)
    counted = {("pass", "1"): 3, ("fail", "1"): 1, ("unjudged", "evil\n"): 1}
    assert {key: n for key, n in windows.verdict_counts().items() if n} == counted
    pages = WindowMetrics(str(tables_at), MODEL, versions=["1"]).collect()
    family = next(each for each in pages if each.name == "ontopic_verdicts")
    samples = {(s.labels["outcome"], s.labels["model_version"]): s.value for s in family.samples if s.value}
    assert samples == {("pass", "1"): 3, ("fail", "1"): 1, ("unjudged", "other"): 1}


def test_a_file_that_holds_no_windows_is_told(tmp_path: Path) -> None:
    (tmp_path / "windows.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="windows cannot be read"):
        WindowStore(tmp_path / "windows.db", MODEL)
