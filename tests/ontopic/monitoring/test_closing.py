"""Closing windows: only what is missing is judged, and page, dashboard and alerts say what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from word_judge import CARD, WordJudge, labelled_traffic

from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.monitoring import closing
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.chart import Chart
from ontopic.monitoring.closing import Closed, Closer, judge_records
from ontopic.monitoring.concerns import concerns
from ontopic.monitoring.window import Cut, Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.promotions import Promotion
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Cut(length=HOUR, records=10, lateness=timedelta(0))


class OneTopic:
    """Knows no topic but one, in place of the sentence encoder's."""

    id = "one"

    def of(self, questions: list[str]) -> list[str]:
        return ["cards" for _ in questions]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(root=tmp_path)


@pytest.fixture
def windows(workspace: Workspace) -> Iterator[WindowStore]:
    with WindowStore(workspace.windows, MODEL) as store:
        yield store


@pytest.fixture
def alerts(workspace: Workspace) -> Iterator[Alerts]:
    rules = [
        AlertSettings(name=kind, events=[kind])  # type: ignore[list-item]
        for kind in ("suspected", "detected", "unjudged", "unjudged_language")
    ]
    with Alerts(workspace.alerts, rules, policy="banking") as store:
        yield store


@pytest.fixture
def closer(
    banking: Policy, workspace: Workspace, windows: WindowStore, alerts: Alerts, monkeypatch: pytest.MonkeyPatch
) -> Closer:
    monkeypatch.setattr(Closer, "_topics", OneTopic())
    promotion = Promotion(at=NOON, version="2", before="1", by="ann", why="better")
    monkeypatch.setattr(closing, "open_registry", lambda *_: SimpleNamespace(promotions=lambda: [promotion]))
    policy = banking.model_copy(update={"least_records": 1, "most_unjudged": 0.5})  # for windows of a few records
    return Closer(policy, workspace, windows=windows, alerts=alerts)


def put(workspace: Workspace, windows: WindowStore, hour: int, *answers: str, questions: Sequence[str] = ()) -> Window:
    """The window, not closed yet, of such answers in that hour."""
    rows = [
        Record(
            question=questions[i] if questions else f"q{i}?",
            answer=answer,
            id=f"{hour}-{i}",
            registered_model=MODEL,
            model_version="1",
            asked_at=NOON + hour * HOUR + timedelta(minutes=i, milliseconds=250),
        )
        for i, answer in enumerate(answers)
    ]
    with TrafficStore(workspace.traffic, MODEL) as traffic:
        traffic.add_many(rows)
    windows.put(rows, len(rows))
    (window,) = windows.holding([row.id for row in rows])
    return window


def close(closer: Closer, window: Window, workspace: Workspace, judge: WordJudge | None = None) -> Closed:
    with TrafficStore(workspace.traffic, MODEL) as traffic:
        records = traffic.records(ids=closer.windows.ids(window))
    judged = judge_records(closer.windows, records, judge=judge or WordJudge(), what=window.label)
    return closer.close(window, judged, card=CARD, now=window.end, labels=labelled_traffic(bad=(98, 100)))


def test_a_language_that_goes_unjudged_raises_an_alert_of_its_own(
    closer: Closer, workspace: Workspace, windows: WindowStore
) -> None:
    german = "Wie kann ich meine verlorene Kreditkarte sperren lassen?"
    raised = []
    for hour in range(3):  # eight German questions each, so that none has enough of them by itself
        answers = [*["none"] * 8, *["good"] * 72]
        asked = [german] * 8 + ["How can I block the credit card that I have lost?"] * 72
        done = close(closer, put(workspace, windows, hour, *answers, questions=asked), workspace)
        raised += [(hour, alert.rule, alert.text) for alert in done.alerts]
    page = Path(done.window.result.report).name if done.window.result else ""
    assert raised == [
        (
            2,
            "unjudged_language",
            f"{done.window.label}: unjudged by the language of the question: de 100% of 24; {page}",
        )
    ]
    assert "By the language of the question" in (workspace.reports / page).read_text()


def test_only_what_is_new_is_judged_after_a_kill(
    workspace: Workspace, windows: WindowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_JUDGED_AT_ONCE", 20)
    window = put(workspace, windows, 0, *["good"] * 50)
    with TrafficStore(workspace.traffic, MODEL) as traffic:
        records = traffic.records()
    killed, second = WordJudge(stops_after=40), WordJudge()
    with pytest.raises(KeyboardInterrupt):
        judge_records(windows, records, judge=killed, what=window.label)
    judged = judge_records(windows, records, judge=second, what=window.label)
    assert (len(killed.asked), len(second.asked)) == (40, 10)
    assert sorted(killed.asked + second.asked) == sorted(record.id for record in records)
    assert [verdict.outcome for verdict in judged.verdicts] == ["pass"] * 50


def test_a_window_that_closes_has_a_page_a_snapshot_and_alerts(
    closer: Closer, workspace: Workspace, windows: WindowStore, alerts: Alerts
) -> None:
    done = close(closer, put(workspace, windows, 0, *["bad"] * 40, *["good"] * 15), workspace)
    result = done.window.result
    assert result and result.drift
    assert (result.status, result.n, result.drift.detected, done.window.state) == ("detected", 55, False, "closed")
    page = Path(result.report)
    assert page.name == "window-ontopic-banking-version-1-20260301T120000-1.html"
    assert str(result.score) in page.read_text()
    assert not any(str(workspace.root) in alert.text for alert in done.alerts)  # it may be read on another machine
    assert [(alert.rule, alert.text.endswith(f"; {page.name}")) for alert in done.alerts] == [
        ("suspected", True),
        ("detected", True),
    ]
    assert all(str(result.score) in alert.text for alert in done.alerts)
    closer.show()
    (project,) = [path for path in workspace.evidently.iterdir() if path.is_dir()]
    (snapshot,) = (project / "snapshots").iterdir()
    shown = json.loads(snapshot.read_text())
    assert shown["metadata"] == {"status": "detected", "model_version": "1"}


def test_a_window_nobody_could_judge_alerts_and_a_healthy_one_recovers(
    closer: Closer, workspace: Workspace, windows: WindowStore, alerts: Alerts
) -> None:
    done = close(closer, put(workspace, windows, 0, "?", "?", "good"), workspace)
    assert [(alert.rule, alert.closed_by) for alert in done.alerts] == [("unjudged", "")]
    assert "67% of the records are unjudged" in done.alerts[0].text
    assert close(closer, put(workspace, windows, 1, *["good"] * 20), workspace).alerts == []
    assert [(alert.rule, alert.closed_by) for alert in alerts.history(9)] == [("unjudged", "recovered")]


def test_a_window_that_is_closed_again_neither_alerts_nor_recovers_anew(
    closer: Closer, workspace: Workspace, windows: WindowStore, alerts: Alerts
) -> None:
    healthy = close(closer, put(workspace, windows, 0, *["good"] * 20), workspace).window
    low = close(closer, put(workspace, windows, 1, *["bad"] * 55), workspace).window
    assert close(closer, healthy, workspace).alerts == []
    again = close(closer, low, workspace)
    assert again.alerts == []
    assert (again.window.state, again.window.result and again.window.result.revision) == ("closed", 1)
    assert {(alert.rule, alert.events, alert.closed_at) for alert in alerts.history(9)} == {
        ("suspected", 1, None),
        ("detected", 1, None),
    }


def test_a_window_is_of_concern_where_it_is_low_or_mostly_unjudged(
    closer: Closer, workspace: Workspace, windows: WindowStore
) -> None:
    answers = {"ok": ["good"] * 20, "low": ["bad"] * 55, "unknown": ["?"]}
    found = {}
    for hour, (name, given) in enumerate(answers.items()):
        window = put(workspace, windows, hour, *given)
        assert concerns(window) == {}
        found[name] = list(concerns(close(closer, window, workspace).window))
    assert found == {"ok": [], "low": ["suspected", "detected"], "unknown": ["unjudged"]}


def chart_of(window: Window | None) -> Chart:
    assert window and window.result and window.result.chart
    return window.result.chart


def test_the_chart_goes_on_from_window_to_window_in_the_order_of_time(
    closer: Closer, workspace: Workspace, windows: WindowStore, alerts: Alerts
) -> None:
    """Also where they are closed in another order, or again: nothing is counted twice, and nothing is lost."""
    closer.policy = closer.policy.model_copy(update={"least_records": 50})
    given = {0: ["good"] * 20, 1: ["bad"] * 30, 2: ["bad"] * 25, 3: ["good"] * 4}
    put_ = {hour: put(workspace, windows, hour, *answers) for hour, answers in given.items()}
    for hour in (0, 3, 2):
        close(closer, put_[hour], workspace)
    assert [chart_of(window).n for window in windows.closed(9)] == [20, 45, 49]
    assert not any(alert.rule == "detected" for alert in alerts.history(9))
    late = close(closer, put_[1], workspace)
    found = windows.closed(9)
    assert [chart_of(window).n for window in found] == [20, 50, 75, 79]
    assert [chart_of(window).passes for window in found] == [20, 20, 20, 24]
    assert [window.result and window.result.status for window in found] == [
        *("unknown", "detected", "detected", "detected")
    ]
    assert [alert.rule for alert in late.alerts][-1] == "detected"
    assert (found[3].state, found[3].closed_at) == ("closed", put_[3].end)
    for hour in given:
        close(closer, windows.holding([f"{hour}-0"])[0], workspace)
    again = windows.closed(9)
    assert [window.result and window.result.chart for window in again] == [chart_of(window) for window in found]


def test_two_windows_that_close_together_lose_no_alarm(
    closer: Closer, workspace: Workspace, windows: WindowStore
) -> None:
    both = [put(workspace, windows, 0, *["bad"] * 55), put(workspace, windows, 1, *["good"] * 20)]
    closed = [close(closer, window, workspace).window for window in both]
    assert [window.result and window.result.status for window in closed] == ["detected", "detected"]


def test_a_chart_begins_anew_where_something_was_done_about_its_alarm(
    closer: Closer, workspace: Workspace, windows: WindowStore
) -> None:
    first = put(workspace, windows, 0, *["bad"] * 55)
    before = chart_of(close(closer, first, workspace).window)
    windows.restart_chart("1", NOON + HOUR)
    # An old window that is closed again is what it was.
    assert chart_of(close(closer, windows.closed(1)[0], workspace).window) == before
    after = close(closer, put(workspace, windows, 1, *["good"] * 20), workspace).window
    chart = chart_of(after)
    assert (chart.n, chart.alarm, chart.since) == (20, False, NOON + HOUR)
    windows.restart_chart("2", NOON + 2 * HOUR)  # another version's
    assert chart_of(close(closer, put(workspace, windows, 2, *["good"] * 20), workspace).window).n == 40


def test_forgotten_verdicts_end_what_is_carried_on(closer: Closer, workspace: Workspace, windows: WindowStore) -> None:
    first, second = put(workspace, windows, 0, *["good"] * 20), put(workspace, windows, 1, *["good"] * 20)
    close(closer, second, workspace)
    windows.forget([*windows.ids(first), *windows.ids(second)])
    before = chart_of(windows.closed(9)[-1])
    close(closer, first, workspace)
    assert chart_of(windows.closed(9)[-1]) == before
