"""`python run.py state`: a folder's state is brought into the database once, and nothing begins anew beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from registries import NAME, made_registry
from typer.testing import CliRunner, Result

import run
from ontopic.data.labels import LabelStore
from ontopic.errors import UserError
from ontopic.evaluation.discordant import kept_pairs
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Record
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.state.moved import settle
from ontopic.state.workspace import Workspace
from ontopic.traffic.identity import names_key, user_hash
from ontopic.traffic.store import TrafficStore

BANKING = "ontopic-banking"
Command = Callable[..., Result]


@pytest.fixture
def before(state_before: Path) -> Workspace:
    """A state folder of OnTopic 0.1, which has had a record and labels since, and a judge."""
    workspace = Workspace(root=state_before, mlflow_uri=f"sqlite:///{state_before / 'mlflow.db'}")
    settle(workspace)  # what names the folder names it where it is
    record = PromotionRecord.of(workspace)
    workspace.files.write(workspace.evidence / "a gate" / "gate.html", b"a page")
    for version in "123":
        record.add("gate", BANKING, version=version, by="the loop", why="", facts={})
    asked = Record(id="r1", question="q", answer="a")
    LabelStore(workspace.lines(workspace.labels / "banking.jsonl")).add(asked, "fail", by="random", why="bad")
    (workspace.judges / "local-0123456789ab").mkdir(parents=True)
    (workspace.judges / "local-0123456789ab" / "judge.joblib").write_bytes(b"a judge")
    return workspace


@pytest.fixture
def command(before: Workspace, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)

    def called(*arguments: str, root: Path | None = None) -> Result:
        return CliRunner().invoke(run.app, [*arguments, "--state", str(root or before.root)])

    return called


def read(workspace: Workspace, *, at: Path | None = None) -> list[object]:
    """What the stores say; where they are the folder's own ones ``at`` is given."""
    with (
        WindowStore(at / "windows.db" if at else workspace.windows, "") as windows,
        Alerts(at / "alerts.db" if at else workspace.alerts, (), policy="banking") as alerts,
        TrafficStore(at / "traffic.db" if at else workspace.traffic) as traffic,
    ):
        found = [windows.unnamed(), alerts.history(100), traffic.records(), traffic.summary().n]
    return [*found, names_key(workspace) if at is None else bytes.fromhex((at / "user.key").read_text())]


def test_all_of_a_folder_is_there_afterwards_and_once(command: Command, before: Workspace, tmp_path: Path) -> None:
    user_hash("anna", before.user_key)
    shutil.copytree(before.root, tmp_path / "as it was")
    done = command("state", "move")
    assert done.exit_code == 0, done.output
    assert "3 lines of promotions.jsonl" in done.output and "1 files of evidence" in done.output
    other = Workspace(root=tmp_path / "another machine")
    assert read(before) == read(other) == read(before, at=tmp_path / "as it was")
    assert [entry.version for entry in PromotionRecord.of(other).entries()] == ["1", "2", "3"]
    own = PromotionRecord(tmp_path / "as it was" / "promotions.jsonl")
    assert PromotionRecord.of(other).entries() == own.entries()
    kept = (tmp_path / "as it was" / "labels" / "banking.jsonl").read_bytes()
    assert other.lines(other.labels / "banking.jsonl").read() == kept
    assert other.files.read(other.evidence / "a gate" / "gate.html") == b"a page"
    assert other.files.read(other.judges / "local-0123456789ab" / "judge.joblib") == b"a judge"
    assert kept_pairs(other, BANKING) == []
    PromotionRecord.of(other).add("gate", BANKING, version="4", by="the loop", why="", facts={})
    (before.root / "moved").unlink()  # as if it had been killed before the folder knew
    (before.root / "moved").write_text('{"id": "other"}')
    again = command("state", "move")
    assert again.exit_code == 0, again.output
    assert "moved to" in again.output and "for it holds nothing" in again.output
    assert "nothing is left to move" in command("state", "move").output
    assert len(PromotionRecord.of(other).entries()) == 4
    assert read(other) == read(before, at=tmp_path / "as it was")


def test_nothing_begins_anew_beside_a_state_that_was_not_moved(command: Command, before: Workspace) -> None:
    for arguments in (("status",), ("traffic",), ("record",), ("label",), ("keys", "list")):
        said = str(command(*arguments).exception)
        assert said.startswith(f"{before.root}: holds a state of its own (") and "windows.db" in said, arguments
        assert said.endswith("`python run.py state move` brings it there")
    assert command("state", "move").exit_code == 0
    assert command("status").exit_code == 0
    assert f"folder: {before.root}" in command("state").output


def test_two_states_are_not_made_one(command: Command, before: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(before.root, other)
    assert command("state", "move").exit_code == 0
    for name in ("promotions.jsonl", "alerts.db", "windows.db"):  # the latter two name pages by their paths
        (other / name).unlink()
    PromotionRecord(other / "promotions.jsonl").add("gate", BANKING, version="9", by="eve", why="", facts={})
    lines = PromotionRecord.of(before).entries()
    refused = command("state", "move", root=other)
    assert isinstance(refused.exception, UserError)
    assert str(refused.exception).startswith("promotions.jsonl is another one in the database, so nothing was moved")
    assert PromotionRecord.of(before).entries() == lines
    (other / "promotions.jsonl").unlink()
    assert command("state", "move", root=other).exit_code == 0


def test_killed_half_way_nothing_is_there(command: Command, before: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from ontopic.state import moving

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(moving, "move_files", killed)
        command("state", "move")
    assert PromotionRecord.of(before).entries() == [] and before.files.within(before.root) == []
    done = command("state", "move")
    assert done.exit_code == 0 and "3 lines of promotions.jsonl" in done.output
    assert len(PromotionRecord.of(before).entries()) == 3


def test_the_traffic_may_have_a_database_of_its_own(
    command: Command, before: Workspace, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE of_its_own")
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", f"{postgres}/of_its_own")
    done = command("state", "move")
    assert done.exit_code == 0, done.output
    with TrafficStore(before.root / "traffic.db") as file, TrafficStore(before.traffic) as moved:
        assert moved.records() == file.records() != []
        assert moved.add(Record(id="new", question="q", answer="a")) == "new"  # numbered behind the last


def test_without_a_database_nothing_can_be_moved(before: Workspace) -> None:
    done = CliRunner().invoke(run.app, ["state", "move", "--state", str(before.root)])
    assert str(done.exception).startswith("no database is named; set ONTOPIC_STATE_URL=")
    assert "none: all is in the folder" in CliRunner().invoke(run.app, ["state", "--state", str(before.root)]).output


def test_the_demo_shows_its_own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", "postgresql://nobody@127.0.0.1:9/none")
    workspace = Workspace(root=tmp_path)
    assert workspace.state_url is not None
    workspace.demo.write_text("digest")
    assert workspace.state_url is None and workspace.traffic == tmp_path / "traffic.db"


def test_a_registry_in_the_folder_needs_no_move(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    made_registry(tmp_path / "fresh", name=NAME)
    done = CliRunner().invoke(run.app, ["status", "--state", str(tmp_path / "fresh")])
    assert done.exit_code == 0, done.output
