"""A state folder of the version before opens and goes on: everything that 0.1 wrote is read, and written on."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import run
from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.records import Record, Verdict
from ontopic.registry.unnamed import named
from ontopic.state.workspace import Workspace, open_workspace

NAME = "ontopic-banking"
ID_IN_0_1 = "2146272126b7c6b55f1f741e4aad851f"
VERDICT = Verdict(outcome="pass", score=0.9, explanation="on the subject", judge_id="words")
LATER = datetime(2026, 11, 27, 9, tzinfo=UTC)


@pytest.fixture
def workspace(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("ONTOPIC_TRAFFIC_URL", raising=False)
    return open_workspace(state_before)


def test_its_traffic_is_read_and_added_to(workspace: Workspace) -> None:
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(workspace.traffic, NAME) as store:
        assert (store.count(), store.unnamed()) == (0, 400)
    with named(TrafficStore(workspace.traffic, NAME), workspace) as store:
        assert [(each.model_version, each.n) for each in store.summary().versions] == [("1", 400)]
        store.add(Record(question="Is the branch open?", answer="Until five.", model_version="1", asked_at=LATER))
        assert (store.count(), store.newest(1)[0].question) == (401, "Is the branch open?")
        assert {record.registered_model for record in store.stream()} == {NAME}


def test_what_is_known_of_another_policy_is_not_taken_for_its_own(workspace: Workspace) -> None:
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore

    with named(TrafficStore(workspace.traffic, "ontopic-travel"), workspace) as traffic:
        assert (traffic.count(), traffic.summary().others) == (0, {NAME: 400})
    with named(WindowStore(workspace.windows, "ontopic-travel"), workspace) as windows:
        assert (windows.closed(-1), windows.waiting(), windows.verdict_counts()) == ([], 0, {})


def test_a_file_that_was_imported_before_adds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    from ontopic.traffic.files import import_traffic
    from ontopic.traffic.store import TrafficStore

    # As 0.1 stored this row, which has no id: under one that follows from what it said.
    said = {"question": "Open?", "answer": "Yes.", "asked_at": "2026-11-01T09:00:00Z", "model_version": "1"}
    with sqlite3.connect(str(workspace.traffic)) as connection:
        columns = "id, asked_at, model_version, question, answer, latency_s, prompt_tokens, completion_tokens, finished"
        row = (ID_IN_0_1, "2026-11-01 09:00:00.000000", "1", "Open?", "Yes.", 0, 0, 0, 1)
        connection.execute(f"INSERT INTO traffic ({columns}) VALUES (?,?,?,?,?,?,?,?,?)", row)  # noqa: S608
    (tmp_path / "rows.jsonl").write_text(json.dumps(said) + "\n")
    with named(TrafficStore(workspace.traffic, NAME), workspace) as store:
        done = import_traffic(tmp_path / "rows.jsonl", store)
        assert (done.stored, done.known, done.others, store.count()) == (0, 1, 0, 401)
    with TrafficStore(workspace.traffic, "ontopic-travel") as store:
        assert import_traffic(tmp_path / "rows.jsonl", store).stored == 1  # said to another assistant


@pytest.mark.parametrize(("others", "which"), [(["ontopic-travel"], "several"), ([], "none yet")])
def test_rows_that_may_be_of_any_policy_are_refused_until_somebody_says_whose_they_are(
    workspace: Workspace, others: list[str], which: str
) -> None:
    from ontopic.traffic.store import TrafficStore
    from ontopic.watch.stores import name_older, stores_of

    with sqlite3.connect(workspace.mlflow_file) as connection:
        if not others:
            connection.execute("DELETE FROM registered_models WHERE name = ?", (NAME,))
        for name in others:
            connection.execute("INSERT INTO registered_models (name, workspace) VALUES (?, 'default')", (name,))
    for command in (["status"], ["traffic"], ["label"], ["traffic", "prune", "--keep", "1"]):
        done = CliRunner().invoke(run.app, [*command, "--state", str(workspace.root)])
        assert isinstance(done.exception, UserError), done.output
        assert which in str(done.exception)
        assert "python run.py traffic adopt --config FILE" in str(done.exception)
    with pytest.raises(UserError, match=which):
        name_older(workspace, NAME)
    done = CliRunner().invoke(run.app, ["traffic", "adopt", "--state", str(workspace.root)])
    assert done.output == f"{400 + 4 + 400 + 2} rows are of {NAME} now\n", done.exception
    for store in stores_of(workspace, NAME):
        with store:
            assert store.unnamed() == 0
    with TrafficStore(workspace.traffic, NAME) as store:
        assert store.count() == 400
    name_older(workspace, NAME)


def test_its_windows_keep_their_results_and_new_ones_follow(workspace: Workspace) -> None:
    from ontopic.monitoring.window import Cut
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore

    older = WindowStore(workspace.windows, NAME), TrafficStore(workspace.traffic, NAME)
    with named(older[0], workspace) as windows, named(older[1], workspace) as traffic:
        closed = windows.closed(-1)
        assert [window.result.status for window in closed if window.result] == ["detected"] * 4
        first = closed[0].result
        assert first is not None and (first.n, first.score.n) == (100, 100)
        assert str(first.score) == "0.225 [0.124, 0.340] (n=100)"
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

    with sqlite3.connect(workspace.windows) as connection:
        row = ("2026-11-26 09:00:00.000000", "refused", "2", "a window", "the gate")
        connection.execute("INSERT INTO actions (at, kind, version, subject, why) VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("INSERT INTO replays VALUES ('r1', '1', 'words', ?)", (VERDICT.model_dump_json(),))
    with named(ActionStore(workspace.windows, NAME), workspace) as store:
        before = store.newest(10)
        store.add(Action(at=LATER, kind="failed", version="1", subject="a window", why="no disk"))
        assert [*before, store.newest(1)[0]] == store.newest(11)
        assert [(action.kind, action.why) for action in before] == [("refused", "the gate")]
        assert store.replayed(["r1"], "1", judge_id="words") == {"r1": VERDICT}


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
    for each in runs:
        snapshot = found.get_run(project.id, each)
        assert snapshot is not None and snapshot.widgets
