"""No stranger's text moves the cursor of a terminal, changes its colours or title, or turns letters around."""

from __future__ import annotations

import json
import shutil
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from browser.hostile_texts import LETTERS
from browser.made_pages import closed_window, judged
from registries import made_registry
from typer.testing import CliRunner

import run
from ontopic.config.alert_settings import AlertSettings
from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BAD = " ".join(LETTERS.values())
_COMMANDS = {
    "status": ["status"],
    "traffic": ["traffic"],
    "alerts": ["alerts"],
    "record": ["record"],
    "record of a version": ["record", "2"],
    "label": ["label"],
    "label by feedback": ["label", "--by", "feedback"],
}


@pytest.fixture(scope="module")
def made(banking: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a stranger's text wherever there is text."""
    root = tmp_path_factory.mktemp("made") / "state"
    registry = made_registry(root, name=MODEL)
    workspace = Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")
    tests = [{"name": BAD, "passed": False, "description": BAD}]
    registry.enter("gate", "2", by=BAD, why=BAD, facts={"gate": "failed", "against": BAD, "decision": {"tests": tests}})
    registry.promote("2", by=BAD, why=BAD, at=NOON)
    version = f"2 {BAD}"
    traffic = judged(12, 6, lambda i: f"{i} {BAD}", model=version, judge_id=BAD)
    with TrafficStore(workspace.traffic, MODEL) as store:
        store.add_many(traffic.records)
        store.add_feedback(Feedback(record_id="1", thumb="down", comment=BAD, correction=BAD, by=BAD, given_at=NOON))
        with WindowStore(workspace.windows, MODEL) as windows:
            cut = Cut(length=timedelta(hours=1), records=10, lateness=timedelta(0))
            windows.take_in(store, cut, now=NOON + timedelta(hours=9))
            for window in windows.due(cut, NOON + timedelta(hours=9)):
                result = closed_window(banking, traffic, name=BAD).result
                assert result is not None
                windows.close_window(window, result, now=NOON + timedelta(hours=9))
    with TrafficStore(workspace.traffic, f"other {BAD}") as other:
        other.add(Record(question=BAD, answer=BAD, id="other", model_version=BAD))
    with Alerts(
        workspace.alerts, [AlertSettings(name="low \u202e", events=["detected"])], policy=banking.name
    ) as alerts:
        for number in (1, 2):
            raised = alerts.event("detected", f"{BAD} {number}", at=NOON, text=BAD)
            if raised:
                alerts.close_alert(raised[0].id, at=NOON, by=BAD)
    with ActionStore(workspace.windows, MODEL) as actions:
        actions.add(Action(at=NOON, kind="refused", version=BAD, subject=BAD, why=BAD))
    return root


@pytest.mark.parametrize("arguments", _COMMANDS.values(), ids=_COMMANDS)
def test_no_text_plays_with_the_terminal(made: Path, tmp_path: Path, arguments: list[str]) -> None:
    shutil.copytree(made, tmp_path / "state")
    done = CliRunner().invoke(run.app, [*arguments, "--state", str(tmp_path / "state")], input="s\n" * 30)
    assert done.exit_code == 0, done.output
    assert "\\x1b" in done.output or "\\u202e" in done.output, done.output
    hidden = {
        c for c in done.output if c not in "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn")
    }
    assert not hidden, [hex(ord(c)) for c in hidden]


@pytest.mark.parametrize("name", ["out.csv", "out.TSV", "out.xlsx"])
@pytest.mark.parametrize("command", [["traffic", "export"], ["preferences", "export"]], ids=["traffic", "preferences"])
def test_nothing_is_written_that_a_spreadsheet_computes(
    made: Path, tmp_path: Path, command: list[str], name: str
) -> None:
    done = CliRunner().invoke(run.app, [*command, str(tmp_path / name), "--state", str(made)])
    assert isinstance(done.exception, UserError)
    assert "a spreadsheet would open it" in str(done.exception)
    assert not (tmp_path / name).exists()


def test_what_is_exported_is_what_was_written(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert CliRunner().invoke(run.app, ["traffic", "export", str(out), "--state", str(made)]).exit_code == 0
    lines = out.read_text(encoding="utf-8").split("\n")
    assert BAD in json.loads(lines[0])["question"]
    assert all(line.startswith("{") for line in lines[:-1])
