"""Shares held against limits: few false alarms whatever the windows, and an alert that opens and closes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy.stats import binom
from word_judge import CARD

from ontopic.config.alert_settings import DEFAULT_RULES, AlertEvent, AlertSettings, MonitoringLimits
from ontopic.config.policy import Policy
from ontopic.endpoint.account import Account
from ontopic.monitoring import closing
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.closing import Closer, judge_records
from ontopic.monitoring.failed_requests import FailedRequests
from ontopic.monitoring.held_shares import HeldShare, held, held_counts, level_of
from ontopic.monitoring.window import Window, WindowResult
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.traffic.request_counts import RequestCount, RequestCounts
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KINDS: tuple[AlertEvent, ...] = ("over_refusal", "leak", "slow", "drift", "judge_cost")


@pytest.mark.parametrize("n", [17, 400])
@pytest.mark.parametrize("windows", [30, 720, 4320], ids=["daily", "hourly", "ten minutes"])
def test_a_share_at_its_limit_is_found_over_it_in_one_month_of_twenty_at_most(windows: int, n: int) -> None:
    """The chance of each look is exact, and the looks of 30 days are added up."""
    level = level_of(timedelta(days=30) / windows)
    least = int(binom.isf(level, n, 0.2)) + 1
    assert windows * float(binom.sf(least - 1, n, 0.2)) <= 0.05
    assert held_counts(least, n, most=0.2, level=level).over
    assert not held_counts(least - 1, n, most=0.2, level=level).over


def test_a_share_far_over_its_limit_is_found_in_a_window() -> None:
    level = level_of(timedelta(0))  # of a window whose records were all asked at once
    assert held([True] * 45 + [False] * 20, most=0.2, level=level).over
    few = held([True] * 3, most=0.2, level=level)
    assert not few.over and not few.is_back
    assert held([True] * 4, most=0.2, level=0.01, before=[few, None, few]).share.n == 10
    nothing = held([], most=0.2, level=level)
    assert not nothing.over and not nothing.is_back
    assert HeldShare.model_validate_json(nothing.model_dump_json()).share.n == 0


def test_records_of_one_conversation_say_less() -> None:
    outcomes = ([True] * 6 + [False] * 4) * 4
    apart = held(outcomes, most=0.4, level=0.01)
    together = held(outcomes, ["a"] * 20 + ["b"] * 20, most=0.4, level=0.01)
    assert apart.over and not together.over


@dataclass
class PricedJudge:
    """Goes by the words of question and answer, and takes a cent a record."""

    id: str = "priced"
    account: Account = field(default_factory=lambda: Account(usd=0.0))

    def judge(self, records: list[Record], advance: Advance | None = None) -> list[Verdict]:
        self.account.requests += len(records)
        self.account.usd = (self.account.usd or 0.0) + 0.01 * len(records)
        return [
            Verdict(
                outcome="pass" if ("sorry" in r.answer) is not ("card" in r.question) else "fail",
                score=0.9,
                explanation="",
                judge_id=self.id,
                in_scope="card" in r.question,
                declined="sorry" in r.answer,
            )
            for r in records
        ]


class Scene:
    """A policy's traffic in windows of an hour, and who closes them."""

    def __init__(self, policy: Policy, root: Path) -> None:
        self.workspace = Workspace(root=root)
        self.traffic = TrafficStore(self.workspace.traffic, MODEL)
        self.windows = WindowStore(self.workspace.windows, MODEL)
        rules = [AlertSettings(name=kind, events=[kind]) for kind in KINDS]
        self.alerts = Alerts(self.workspace.alerts, rules, policy=policy.name)
        limits = MonitoringLimits(latency_s=2.0, drift=0.3, judge_usd=10.0)
        of = {"windows": self.windows, "alerts": self.alerts, "limits": limits}
        self.closer = Closer(policy, self.workspace, **of)

    def hour(self, hour: int, kinds: dict[tuple[str, str, float], int], now: datetime) -> Window:
        """Close a window of so many records of each question, answer and latency."""
        given = [each for each, n in kinds.items() for _ in range(n)]
        rows = [
            Record(
                question=question,
                answer=answer,
                latency_s=latency_s,
                id=f"{hour}-{i}",
                registered_model=MODEL,
                model_version="1",
                asked_at=NOON + hour * HOUR + timedelta(seconds=i),
            )
            for i, (question, answer, latency_s) in enumerate(given)
        ]
        self.traffic.add_many(rows)
        self.windows.put(rows, len(rows))
        (window,) = self.windows.holding([row.id for row in rows])
        judged = judge_records(self.windows, rows, judge=PricedJudge(), what="a window")
        return self.closer.close(window, judged, card=CARD, now=now).window

    @property
    def open(self) -> set[str]:
        return {alert.rule for alert in self.alerts.history(50) if alert.closed_at is None}


@pytest.fixture
def scene(banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    topics = SimpleNamespace(id="words", of=lambda questions: [each.split()[0] for each in questions])
    monkeypatch.setattr(Closer, "_topics", topics)
    monkeypatch.setattr(closing, "open_registry", lambda *_: SimpleNamespace(promotions=lambda: []))
    made = Scene(banking, tmp_path)
    yield made
    for store in (made.traffic, made.windows, made.alerts):
        store.close()


def test_each_kind_opens_one_alert_and_closes_it_when_it_is_over(scene: Scene) -> None:
    healthy = {("card lost?", "block it", 1.0): 250, ("a poem?", "sorry", 1.0): 250}
    bad = {("loans: card?", "sorry", 5.0): 150, ("taxes?", "here you go", 5.0): 150}
    now = datetime.now(UTC)
    scene.hour(0, healthy, now)
    assert scene.open == set()
    first = scene.hour(1, bad, now)
    scene.hour(2, bad, now)  # what is open is not raised again
    assert scene.open == set(KINDS)
    raised = {alert.rule: alert for alert in scene.alerts.history(50)}
    assert [raised[kind].events for kind in KINDS] == [2, 2, 2, 2, 1]  # 8 dollars by then, 11 by now
    page = Path(first.result.report).name if first.result else ""
    assert all(raised[kind].text.endswith(f"; {page}") for kind in KINDS if kind != "judge_cost")
    assert not any(str(scene.workspace.root) in alert.text for alert in raised.values())
    assert "leak, as judged, 1.000 [0.975, 1.000] (n=150), the most 0.2 (p = " in raised["leak"].text
    later = now + timedelta(hours=25)  # what judging cost by then is forgotten
    scene.hour(3, healthy, later)
    assert scene.open <= {"drift"}  # of which the last 300 questions say that it goes on
    scene.hour(4, healthy, later)
    assert scene.open == set()
    assert {alert.closed_by for alert in scene.alerts.history(50)} == {"recovered"}


def test_a_limit_that_is_not_set_raises_nothing(scene: Scene) -> None:
    scene.closer = Closer(scene.closer.policy, scene.workspace, windows=scene.windows, alerts=scene.alerts)
    window = scene.hour(0, {("card lost?", "block it", 900.0): 300}, datetime.now(UTC))
    assert window.result and window.result.slow is None and scene.open == set()
    older = window.result.model_dump(exclude={"over_refusal", "leak", "slow", "judge_cost"})
    assert WindowResult.model_validate(older).leak is None


def test_a_rule_of_several_events_stays_open_until_all_that_it_collected_is_over(tmp_path: Path) -> None:
    rule = AlertSettings(name="both", events=["leak", "errors", "promoted"])
    with Alerts(tmp_path / "alerts.db", [rule], policy="banking") as alerts:

        def is_open() -> bool:
            return alerts.history(1)[0].closed_at is None

        alerts.event("leak", "w1", at=NOON, text="leak")
        alerts.recovered("w2", at=NOON, over=["errors", "drift"])
        assert is_open()
        alerts.recovered("w2", at=NOON, over=["leak"])  # no error was collected
        assert not is_open()
        alerts.event("errors", "r1", at=NOON, text="errors")
        alerts.event("leak", "w3", at=NOON, text="leak")
        alerts.recovered("w4", at=NOON, over=["leak"])
        alerts.event("leak", "w5", at=NOON, text="leak")
        alerts.recovered("r2", at=NOON, over=["errors"])
        assert is_open()  # the leak came back
        alerts.recovered("w6", at=NOON, over=["leak"])
        assert not is_open()


def test_failed_requests_open_an_alert_though_no_window_is_filled(tmp_path: Path) -> None:
    rules = [AlertSettings(name="errors", events=["errors"])]
    with (
        RequestCounts(tmp_path / "traffic.db", MODEL) as counts,
        WindowStore(tmp_path / "windows.db", MODEL) as windows,
        Alerts(tmp_path / "alerts.db", rules, policy="banking") as alerts,
    ):
        failed = FailedRequests(counts, windows=windows, alerts=alerts, limits=MonitoringLimits())
        start = datetime.now(UTC).replace(second=0, microsecond=0)

        def minute(at: int, answered: int, failing: int) -> list[str]:
            moment = start + timedelta(minutes=at)
            counts.add([RequestCount(minute=moment, answered=answered, failed=failing)])
            return [alert.text for alert in failed.look(moment + timedelta(minutes=1))]

        assert minute(0, 200, 4) == []
        assert minute(1, 0, 100) == []  # five minutes are not over
        (text,) = minute(6, 0, 30)
        assert text.startswith("requests until ") and "failed 1.000 [0.970, 1.000] (n=130)" not in text
        assert "(n=130), the most 0.05" in text
        assert minute(12, 100, 90) == []  # one alert
        assert (alerts.history(9)[0].events, alerts.history(9)[0].closed_at) == (2, None)
        assert failed.look(start + timedelta(minutes=19)) == []  # nothing was asked, which says nothing
        assert alerts.history(9)[0].closed_at is None
        assert minute(25, 150, 1) == []
        assert [alert.closed_by for alert in alerts.history(9)] == ["recovered"]
        counts.add([RequestCount(minute=start - timedelta(days=91), answered=1)])
        assert counts.between(start - timedelta(days=99), start - timedelta(days=80)) == []


def test_there_is_a_rule_for_everything_that_is_watched() -> None:
    events = {event for rule in DEFAULT_RULES for event in rule.events}
    assert events >= {*KINDS, "errors", "detected", "misfit", "disliked", "unjudged", "unjudged_language"}
