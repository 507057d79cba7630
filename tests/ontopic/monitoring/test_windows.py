"""Windows: cut by time and by count, late records, only what is new is judged, and what becomes of each."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopback import ROOT
from values import replace

from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring.windows import Cut, Window, WindowStore, status
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.statistics.rates import Rate, rate
from ontopic.traffic.store import TrafficStore
from serving.metrics import _Verdicts

NAME = re.compile(r"ontopic_\w+")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HOURLY = Cut(length=HOUR, records=10, lateness=5 * MINUTE)
TENS = Cut(length=None, records=10, lateness=5 * MINUTE)
CARD = JudgeCard(
    judge_id="words",
    accuracy=rate(99, 100),
    kappa=rate(98, 100),
    sensitivity=rate(500, 500),
    specificity=rate(500, 500),
    unjudged=0,
)


@dataclass
class WordJudge:
    """Passes an answer with ``good``, fails one with ``bad``, cannot judge others; notes what it was asked."""

    id: str = "words"
    account: Account = field(default_factory=Account)
    asked: list[str] = field(default_factory=list)

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.asked += [record.id for record in records]
        return [self._verdict(record) for record in records]

    def _verdict(self, record: Record) -> Verdict:
        if "good" in record.answer or "bad" in record.answer:
            return Verdict(
                outcome="pass" if "good" in record.answer else "fail",
                score=0.9,
                explanation="",
                judge_id=self.id,
                in_scope=True,
                declined=False,
            )
        return Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="no word")


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[WindowStore]:
    with WindowStore(tmp_path / "windows.db") as store:
        yield store


@pytest.fixture
def traffic(store_at: Path | str) -> Iterator[TrafficStore]:
    with TrafficStore(store_at) as store:
        yield store


def ask(traffic: TrafficStore, *minutes: float, answer: str = "good", version: str = "1") -> list[str]:
    """A record at each of these minutes after noon; returns their ids."""
    return [
        traffic.add(
            Record(
                question="q?",
                answer=answer,
                model_version=version,
                asked_at=NOON + timedelta(minutes=m),
                latency_s=m / 100,
            )
        )
        for m in minutes
    ]


def turn(
    windows: WindowStore, traffic: TrafficStore, judge: WordJudge, minutes: float, cut: Cut = HOURLY
) -> list[Window]:
    """What closes at so many minutes after noon."""
    now = NOON + timedelta(minutes=minutes)
    windows.take_in(traffic, cut, now=now)
    closed = []
    for window in windows.due(cut, now):
        judged = windows.judge(window, traffic, judge=judge, sampling_rate=cut.sampling_rate)
        closed.append(
            windows.close_window(window, windows.result(window, judged, card=CARD, threshold=0.9, drift=None), now=now)
        )
    return closed


def sizes(closed: Sequence[Window]) -> list[tuple[str, int]]:
    return [(f"{window.start:%H:%M}", window.result.n) for window in closed if window.result]


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
    assert sorted(judge.asked[2:]) == sorted(late)  # the others were judged already
    ask(traffic, 1.8)
    assert turn(windows, traffic, judge, 500, cut) == []
    assert len(judge.asked) == 5
    assert windows.waiting() == 0


def test_only_what_is_new_is_judged_after_a_kill(windows: WindowStore, traffic: TrafficStore) -> None:
    ids = ask(traffic, *range(50), answer="good")
    now = NOON + 2 * HOUR
    windows.take_in(traffic, HOURLY, now=now)
    (window,) = windows.due(HOURLY, now)
    first = WordJudge()
    windows.judge(window, traffic, judge=first, sampling_rate=1.0)  # and here the process dies
    with WindowStore(windows.path) as again:
        second = WordJudge()
        assert sizes(turn(again, traffic, second, 120)) == [("12:00", 50)]
        assert second.asked == []
        assert again.take_in(traffic, HOURLY, now=now) == 0
    assert sorted(first.asked) == sorted(ids)


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
    assert len(turn(windows, traffic, WordJudge("others"), 130)) == 1


def test_a_window_that_nobody_could_judge_is_unknown(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, 1, answer="?")
    (window,) = turn(windows, traffic, WordJudge(), 70)
    assert window.result
    assert (window.result.status, window.result.unjudged_share) == ("unknown", 1.0)
    assert windows.closed(1) == [window] or windows.closed(1)[0].result


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (Rate(value=0.95, low=0.91, high=0.97, n=100), "ok"),
        (Rate(value=0.9, low=0.85, high=0.95, n=100), "ok"),
        (Rate(value=0.89, low=0.85, high=0.93, n=100), "suspected"),
        (Rate(value=0.8, low=0.7, high=0.899, n=100), "detected"),
        (Rate(value=float("nan"), low=0.0, high=1.0, n=0), "unknown"),
    ],
)
def test_the_status_reads_estimate_and_interval(share: Rate, expected: str) -> None:
    assert status(share, 0.9) == expected


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
        with TrafficStore(tmp_path / f"t{seed}.db") as traffic, WindowStore(tmp_path / f"w{seed}.db") as windows:
            for start in range(0, 40, 8):  # stored while time passes, but all within the lateness
                ask(traffic, *shuffled[start : start + 8])
                windows.take_in(traffic, HOURLY, now=NOON)
            found.append(sizes(turn(windows, traffic, WordJudge(), 400)))
    assert found[0] == found[1] == found[2]
    assert sum(n for _, n in found[0]) == 40


def test_verdicts_are_forgotten_and_windows_stay(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, 1, 70)
    turn(windows, traffic, WordJudge(), 140)
    windows.forget(NOON + HOUR)
    first, second = windows.closed(2)
    assert len(windows.judged([first], traffic).records) == 0
    assert len(windows.judged([first, second], traffic).verdicts) == 1
    assert first.result


def test_verdicts_are_counted_by_outcome_and_version(windows: WindowStore, traffic: TrafficStore) -> None:
    ask(traffic, 1, 2, 70, version="1")
    ask(traffic, 3, answer="bad", version="1")
    ask(traffic, 4, answer="?", version="evil\n")
    turn(windows, traffic, WordJudge(), 140)
    counted = {("pass", "1"): 3, ("fail", "1"): 1, ("unjudged", "evil\n"): 1}
    assert {key: n for key, n in windows.verdict_counts().items() if n} == counted
    (family,) = _Verdicts(windows.path).collect()
    samples = {(s.labels["outcome"], s.labels["model_version"]): s.value for s in family.samples if s.value}
    assert samples == {("pass", "1"): 3, ("fail", "1"): 1, ("unjudged", "other"): 1}


def test_a_file_that_holds_no_windows_is_told(tmp_path: Path) -> None:
    (tmp_path / "windows.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="windows cannot be read"):
        WindowStore(tmp_path / "windows.db")


def test_the_grafana_dashboard_asks_for_metrics_that_there_are() -> None:
    text = (ROOT / "serving/grafana-dashboard.json").read_text()
    names = {name for panel in json.loads(text)["panels"] for t in panel["targets"] for name in NAME.findall(t["expr"])}
    source = (ROOT / "serving/metrics.py").read_text()
    assert len(names) > 8
    for name in names:
        assert f'"{name.removesuffix("_total").removesuffix("_bucket")}"' in source
