"""A state folder of the version before opens and goes on: everything that 0.1 wrote is read, and written on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings
from ontopic.records import Record
from ontopic.state.workspace import Workspace, open_workspace

NAME = "ontopic-banking"
LATER = datetime(2026, 11, 27, 9, tzinfo=UTC)


@pytest.fixture
def workspace(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ONTOPIC_TRAFFIC_URL", raising=False)
    return open_workspace(state_before)


def test_its_traffic_is_read_and_added_to(workspace: Workspace) -> None:
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(workspace.traffic) as store:
        assert [(each.model_version, each.n) for each in store.summary().versions] == [("1", 400)]
        store.add(Record(question="Is the branch open?", answer="Until five.", model_version="1", asked_at=LATER))
        assert (store.count(), store.newest(1)[0].question) == (401, "Is the branch open?")


def test_its_windows_keep_their_results_and_new_ones_follow(workspace: Workspace) -> None:
    from ontopic.monitoring.window import Cut
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore

    with WindowStore(workspace.windows) as windows, TrafficStore(workspace.traffic) as traffic:
        closed = windows.closed(-1)
        assert [window.result.status for window in closed if window.result] == ["detected"] * 4
        first = closed[0].result
        assert first is not None and (first.n, first.corrected.n) == (100, 100)
        assert str(first.corrected) == "0.225 [0.124, 0.340] (n=100)"
        assert len(windows.judged(closed, traffic).verdicts) == 400
        traffic.add_many(
            [Record(question=f"{i}?", answer="Yes.", model_version="1", asked_at=LATER) for i in range(20)]
        )
        cut = Cut(length=None, records=20, lateness=timedelta(0))
        assert windows.take_in(traffic, cut, now=LATER) == 20
        (due,) = windows.due(cut, LATER)
        assert (due.model_version, due.start) == ("1", LATER)


def test_its_actions_are_read(workspace: Workspace) -> None:
    from ontopic.watch.actions import Action, ActionStore

    with ActionStore(workspace.windows) as store:
        before = store.newest(10)
        store.add(Action(at=LATER, kind="failed", version="1", subject="a window", why="no disk"))
        assert [*before, store.newest(1)[0]] == store.newest(11)


def test_its_open_alert_stays_open_and_takes_more_events(workspace: Workspace, banking: Policy) -> None:
    from ontopic.monitoring.alerts import Alerts

    rules = [AlertSettings(name="off topic", events=["detected"], severity="critical")]
    with Alerts(workspace.alerts, rules, policy=banking.name) as alerts:
        (alert,) = alerts.history(10)
        assert (alert.rule, alert.closed_at) == ("off topic", None)
        assert alerts.event("detected", "another window", at=LATER, text="low") == []
        assert alerts.history(1)[0].events == alert.events + 1


def test_its_keys_are_still_accepted(workspace: Workspace) -> None:
    from serving.keys import KeyStore

    store = KeyStore(workspace.keys)
    (key,) = store.all()
    assert (key.name, key.requests_per_minute, key.state(LATER)) == ("website", 60, "active")
    store.make("another")
    assert [each.name for each in store.all()] == ["website", "another"]


def test_its_labels_are_read_and_added_to(workspace: Workspace) -> None:
    from ontopic.data.labels import LabelStore

    store = LabelStore(workspace.labels / "banking.jsonl")
    before = store.labels()
    assert [(row.label, row.split) for row in before] == [("pass", "calibration")]
    store.add(Record(question="Is it open?", answer="Yes."), "pass", by="random")
    assert len(store.labels()) == len(before) + 1


def test_its_judges_card_is_read(workspace: Workspace) -> None:
    from ontopic.judges.cards.card import JudgeCard

    (path,) = workspace.judges.glob("*.card.json")
    card = JudgeCard.model_validate_json(path.read_bytes())
    assert (card.accuracy.n, card.n, len(card.criteria_sha256)) == (819, 819, 64)


def test_its_champion_and_promotions_are_read_and_go_on(workspace: Workspace) -> None:
    from ontopic.registry.promotions import open_registry

    registry = open_registry(workspace, NAME)
    assert registry.champion() == "1"
    moves = registry.promotions()
    assert [(move.version, move.before, move.rollback) for move in moves] == [
        ("1", "", False),
        ("2", "1", False),
        ("1", "2", True),
    ]
    assert len(registry.tags_of("2")["ontopic.gate.policy_sha256"]) == 64
    registry.promote("2", by="an engineer", why="it answers better")
    assert registry.champion() == "2"


def test_its_dashboard_shows_its_windows(workspace: Workspace) -> None:
    from evidently.ui.workspace import Workspace as EvidentlyWorkspace

    import ontopic.reports.metrics  # noqa: F401  # as `run.py ui` does, so that Evidently knows our metrics

    found = EvidentlyWorkspace.create(str(workspace.evidently))
    (project,) = found.search_project(NAME)
    runs = found.list_runs(project.id)
    assert len(runs) == 4
    for run in runs:
        snapshot = found.get_run(project.id, run)
        assert snapshot is not None and snapshot.widgets
