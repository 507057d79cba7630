"""Two policies in one state folder, each of whose assistants has a version 1 and 2: no command sees the other's."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from loopback import ROOT
from typer.testing import CliRunner, Result
from word_judge import CARD, WordJudge

import run
from ontopic.commands import labels
from ontopic.commands.options import Project, open_project
from ontopic.config.alert_settings import AlertSettings
from ontopic.errors import UserError
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import close_asked, judge_asked
from ontopic.monitoring.closing import Closer
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Record
from ontopic.state.service_file import write_service
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAMES = ("gardening", "travel")
HOSTILE = [
    *("../../etc/passwd", "a:b*c?", "\x1b[2J\x1b]0;owned\x07", "CON", " ", "a\nb\u202e"),
    *("é" * 200, "x" * 200, "x" * 199 + "y"),
]


@dataclass
class Folder:
    """A state folder with the traffic of two policies, and the command line on it."""

    configs: dict[str, Path]
    state: Path

    @property
    def workspace(self) -> Workspace:
        return Workspace(root=self.state, mlflow_uri=f"sqlite:///{self.state}/mlflow.db")

    def project(self, name: str) -> Project:
        return open_project(self.configs[name], self.state)

    def called(self, name: str, *arguments: str, typed: str = "") -> Result:
        command = [*arguments, "--config", str(self.configs[name]), "--state", str(self.state)]
        return CliRunner().invoke(run.app, command, input=typed)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Of each policy three records of version 1 and five of version 2, all asked at the same moments."""
    monkeypatch.delenv("ONTOPIC_TRAFFIC_URL", raising=False)
    configs = {}
    for name in NAMES:
        policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text(encoding="utf-8"))
        (tmp_path / f"{name}-policy.yaml").write_text(yaml.safe_dump(policy | {"name": name}))
        settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text(encoding="utf-8"))
        settings |= {"policy": f"{name}-policy.yaml", "judge_prompts": str(ROOT / "configs/judge_prompts")}
        configs[name] = tmp_path / f"{name}.yaml"
        configs[name].write_text(yaml.safe_dump(settings))
    found = Folder(configs, tmp_path / "state")
    for name in NAMES:
        rows = [
            {
                "question": f"{name} question {i} of version {version}?",
                "answer": "good" if name == "gardening" else "bad",
                "model_version": version,
                "asked_at": (NOON + i * MINUTE).isoformat(),
                "id": f"{name}-{version}-{i}",
            }
            for version, n in (("1", 3), ("2", 5))
            for i in range(n)
        ]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = found.called(name, "traffic", "import", str(path))
        assert "8 records were stored, 0 were there already" in done.output, done.exception
    return found


def close_windows(folder: Folder, name: str, monkeypatch: pytest.MonkeyPatch, size: int = 5) -> list[Path]:
    """Have the windows of all of a policy's traffic closed; returns their pages."""
    topics = SimpleNamespace(id="", of=lambda questions: ["cards" for _ in questions])
    monkeypatch.setattr(Closer, "_topics", topics)
    project, workspace = folder.project(name), folder.workspace
    model = project.policy.registered_model
    rules = [AlertSettings(name="off topic", events=["suspected"])]
    with (
        TrafficStore(workspace.traffic, model) as traffic,
        WindowStore(workspace.windows, model) as windows,
        Alerts(workspace.alerts, rules, policy=name) as alerts,
    ):
        judged = judge_asked(windows, traffic.records(), judge=WordJudge(), window_records=size)
        policy = project.policy.model_copy(update={"least_records": 1})
        closer = Closer(policy, workspace, windows=windows, alerts=alerts)
        now = NOON + 60 * MINUTE
        monitored = close_asked(judged, CARD, closer=closer, window_records=size, reports=workspace.reports, now=now)
    return [monitored.report, *(Path(window.result.report) for window in monitored.windows if window.result)]


def test_traffic_counts_exports_and_prunes_its_own(folder: Folder, tmp_path: Path) -> None:
    said = folder.called("travel", "traffic").output
    assert "8 records in" in said and "of ontopic-travel" in said
    assert "Records of others there: 8 of ontopic-gardening" in said
    out = tmp_path / "out.jsonl"
    assert "8 records are in" in folder.called("travel", "traffic", "export", str(out)).output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["registered_model"] for row in rows} == {"ontopic-travel"}
    assert {row["question"].split()[0] for row in rows} == {"travel"}
    done = folder.called("travel", "traffic", "prune", "--keep", "2", "--older-than", "1d")
    assert "8 records were deleted, 0 are left" in done.output
    missing = folder.called("travel", "traffic")
    assert isinstance(missing.exception, UserError)
    assert "there is no traffic of ontopic-travel yet" in str(missing.exception)
    assert "8 of ontopic-gardening" in str(missing.exception)
    assert "8 records in" in folder.called("gardening", "traffic").output


@pytest.mark.parametrize("to", ["jsonl", "parquet", "openai", "mlflow"])
def test_what_is_exported_stays_that_policys_wherever_it_is_imported(folder: Folder, tmp_path: Path, to: str) -> None:
    out = tmp_path / ("out.parquet" if to == "parquet" else "out.jsonl")
    folder.called("gardening", "traffic", "export", str(out), "--format", to)
    assert "8 records were deleted" in folder.called("gardening", "traffic", "prune", "--keep", "0").output
    assert "8 records were stored" in folder.called("travel", "traffic", "import", str(out)).output
    with TrafficStore(folder.workspace.traffic, "ontopic-gardening") as store:
        assert store.count() == 8
    with TrafficStore(folder.workspace.traffic, "ontopic-travel") as store:
        assert {record.question.split()[0] for record in store.records()} == {"travel"}


def test_chats_and_traces_are_of_the_policy_that_imports_them(folder: Folder, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]}
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps(chat | {"model": "2"}) + "\n")
    for name in NAMES:  # the same file: each assistant said it
        stored = folder.called(name, "traffic", "import", str(path)).output
        assert "1 records were stored, 0 were there already" in stored
        with TrafficStore(folder.workspace.traffic, f"ontopic-{name}") as store:
            assert [record.answer for record in store.newest(1)] == ["There."]
        assert "0 records were stored, 1 were" in folder.called(name, "traffic", "import", str(path)).output


def test_an_id_that_is_another_policys_is_told(folder: Folder, tmp_path: Path) -> None:
    row = {"question": "Mine?", "answer": "a", "id": "gardening-1-0"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    said = folder.called("travel", "traffic", "import", str(tmp_path / "mine.jsonl")).output
    assert "0 records were stored, 1 were there already" in said
    assert "1 of these are another policy's and stay so" in said
    again = folder.called("gardening", "traffic", "import", str(tmp_path / "mine.jsonl")).output
    assert "another policy's" not in again


def test_label_offers_its_own_newest_version_and_its_own_feedback(folder: Folder) -> None:
    assert {record.id for record in labels.newest_traffic(folder.workspace, "ontopic-travel")} == {
        f"travel-2-{i}" for i in range(5)
    }
    done = folder.called("travel", "label", typed="q\n")
    assert done.exit_code == 0, done.exception
    assert "travel question" in done.output and "gardening question" not in done.output
    with TrafficStore(folder.workspace.traffic) as store:  # a service takes the feedback on any record of its store
        for name in NAMES:
            assert store.add_feedback(Feedback(record_id=f"{name}-2-0", thumb="down", comment=f"bad {name}", by="web"))
    done = folder.called("travel", "label", "--by", "feedback", typed="q\n")
    assert "bad travel" in done.output and "bad gardening" not in done.output


def test_windows_pages_dashboards_and_alerts_are_kept_apart(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {name: close_windows(folder, name, monkeypatch) for name in NAMES}
    assert len(set(pages["gardening"] + pages["travel"])) == 2 * 3  # two versions, and the page on all
    for name in NAMES:
        assert all(f"ontopic-{name}-version" in page.name for page in pages[name])
        text = pages[name][1].read_text(encoding="utf-8")
        assert f"{name}, version" in text
    projects = [path for path in folder.workspace.evidently.iterdir() if path.is_dir()]
    assert sorted(len(list((project / "snapshots").iterdir())) for project in projects) == [2, 2]
    said = {name: folder.called(name, "status").output for name in NAMES}
    assert "none open" in said["gardening"] and "suspected" not in said["gardening"]
    assert said["travel"].count("suspected") == 2
    assert "8 records in" in said["gardening"] and "8 records in" in said["travel"]
    alerts = folder.called("gardening", "alerts")
    assert "no alert yet" in str(alerts.exception)
    closed = folder.called("gardening", "alerts", "close", "1")
    assert "there is no open alert 1 of gardening" in str(closed.exception)
    assert "alert 1 is closed" in folder.called("travel", "alerts", "close", "1").output


def test_pruning_one_policy_leaves_the_others_verdicts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        close_windows(folder, name, monkeypatch)
    folder.called("travel", "traffic", "prune", "--keep", "0")
    with WindowStore(folder.workspace.windows, "ontopic-gardening") as windows:
        with TrafficStore(folder.workspace.traffic, "ontopic-gardening") as traffic:
            assert len(windows.judged(windows.closed(-1), traffic).verdicts) == 8
        assert windows.verdict_counts()["pass", "2"] == 5
    with WindowStore(folder.workspace.windows, "ontopic-travel") as windows:
        assert windows.verdicts([f"travel-2-{i}" for i in range(5)], "words") == {}


def test_status_shows_its_own_actions_and_which_model_the_service_serves(folder: Folder) -> None:
    for name, why in (("gardening", "too dry"), ("travel", "too far")):
        with ActionStore(folder.workspace.windows, f"ontopic-{name}") as store:
            store.add(Action(at=NOON, kind="refused", version="2", subject="a window", why=why))
    entry = write_service(
        folder.workspace.service, process=psutil.Process(), host="127.0.0.1", port=3000, model="ontopic-gardening"
    )
    said = {name: " ".join(folder.called(name, "status").output.split()) for name in NAMES}
    assert "too far" in said["travel"] and "too dry" not in said["travel"]
    assert "too dry" in said["gardening"] and "too far" not in said["gardening"]
    assert f"process {os.getpid()} on port 3000 serves ontopic-gardening" in said["gardening"]
    assert "not ontopic-gardening" not in said["gardening"]
    assert "serves ontopic-gardening, not ontopic-travel" in said["travel"]
    folder.workspace.service.write_text(entry.model_dump_json(exclude={"model"}))  # as an older release writes it
    assert "on port 3000" in " ".join(folder.called("travel", "status").output.split())


def test_a_strangers_version_stays_out_of_terminals_and_file_names(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TrafficStore(folder.workspace.traffic, "ontopic-travel") as traffic:
        traffic.add_many(  # all of the same microsecond
            Record(question="q?", answer="bad", id=f"h{i}", model_version=version, asked_at=NOON)
            for i, version in enumerate(HOSTILE)
        )
    pages = close_windows(folder, "travel", monkeypatch, size=10)
    assert len(set(pages)) == 1 + 2 + len(HOSTILE)
    for page in pages:
        assert page.is_file() and page.parent == folder.workspace.reports
        assert set(page.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
        assert len(page.name) < 200
    for command in ("status", "traffic"):
        assert "\x1b" not in folder.called("travel", command).output
