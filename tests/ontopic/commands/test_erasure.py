"""`python run.py traffic erase`: nothing of it is found again, wherever it went, and others' traffic stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from erased_state import CUT, HOUR, JAPANESE, NAME, NOON, OTHERS, found_in, found_in_database, made_state
from filelock import FileLock
from registries import made_registry
from typer.testing import CliRunner, Result

import run
from ontopic.commands import erasure
from ontopic.data.labels import LabelStore
from ontopic.errors import UserError
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import open_registry
from ontopic.registry.record_check import check_record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "state"
    made_state(root, root / "traffic.db")
    (root / "place").unlink(missing_ok=True)
    return root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    root = tmp_path / "state"
    shutil.copytree(made, root)
    return Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def command(workspace: Workspace) -> Command:
    def called(*arguments: str) -> Result:
        return CliRunner().invoke(run.app, ["traffic", *arguments, "--state", str(workspace.root)])

    return called


def test_nothing_of_a_user_is_found_anywhere_and_others_stay(command: Command, workspace: Workspace) -> None:
    before = found_in(workspace.root, "kanarie")
    assert len(before) > 20  # or the search finds nothing by itself
    robins = set(found_in(workspace.root, "robin"))
    done = command("erase", "--user", "anna", "--yes")
    assert done.exit_code == 0, done.output
    assert found_in(workspace.root, "kanarie") == []
    assert found_in(workspace.root, JAPANESE) == found_in(workspace.root, "talk-") == []
    # What said nothing of which record it is of went too: an archive, and grades of an older release.
    gone = robins - set(found_in(workspace.root, "robin"))
    assert [name for name in gone if not name.startswith(("kept.zip", "verdicts.db"))] == []
    assert "version 2 of ontopic-banking was trained on some of it" in done.output
    assert "Deleted as a whole: kept.zip" in done.output
    assert not list(workspace.erasures.glob("*"))


def test_what_is_abreast_stays_abreast(command: Command, workspace: Workspace) -> None:
    assert command("erase", "--user", "anna", "--yes").exit_code == 0
    judged = json.loads((workspace.zenml / "artifacts" / "step" / "judged.json").read_text())
    assert [row["id"] for row in judged["records"]] == ["other-0", "other-1", "other-2"]
    assert [row["explanation"] for row in judged["verdicts"]] == [OTHERS[:20]] * 3
    folder = workspace.evidence / "a-gate"
    for name in ("champion-answers.jsonl", "champion-verdicts.jsonl"):
        assert len((folder / name).read_text().splitlines()) == 3, name
    assert len(LabelStore(workspace.labels / "banking.jsonl").labels()) == 6


def test_a_reopened_window_goes_on_without_it(command: Command, workspace: Workspace) -> None:
    assert command("erase", "--conversation", "talk", "--yes").exit_code == 0
    with WindowStore(workspace.windows, NAME) as windows:
        (window,) = windows.due(CUT, NOON + 3 * HOUR)
        assert windows.ids(window) == ["other-0", "other-1", "other-2", "late"]


def test_one_record_goes_from_the_later_turns_too(command: Command, workspace: Workspace) -> None:
    assert command("erase", "--record", "talk-1", "--yes").exit_code == 0
    with TrafficStore(workspace.traffic, NAME) as store:
        (later,) = store.records(ids=["talk-3"])
        assert store.count() == 10
    assert [m.content for m in later.messages if m.role == "user"][1] == "[erased]"
    assert later.messages[0].content == "You help a bank's customers."
    assert found_in(workspace.root, "kanarieC") == found_in(workspace.root, "kanarieH1") == []
    for word in ("kanarieB", "kanarieD", "kanarieK"):
        assert found_in(workspace.root, word), word


def test_what_another_said_too_stays_his(command: Command, workspace: Workspace) -> None:
    with TrafficStore(workspace.traffic, NAME) as store:
        (mine,) = store.records(ids=["talk-3"])
        store.add(mine.model_copy(update={"id": "same", "conversation": "", "user": "", "messages": ()}))
    assert command("erase", "--user", "anna", "--yes").exit_code == 0
    assert "reports/window.html" in found_in(workspace.root, "kanarieE")
    assert found_in(workspace.root, "kanarieB") == []


def test_the_auditor_reads_who_when_and_how_many_and_no_text(command: Command, workspace: Workspace) -> None:
    command("erase", "--user", "anna", "--yes")
    registry = open_registry(workspace, NAME)
    entry = PromotionRecord(workspace.promotion_record).entries(NAME)[-1]
    assert (entry.kind, entry.why, entry.facts["records"]) == ("erasure", "a user was erased", 9)
    assert entry.facts["erased"]["records"] == 7 and entry.facts["erased"]["records in the spool"] == 2
    assert "anna" not in entry.model_dump_json()
    checked = check_record(registry.record, workspace=workspace, registries=[registry])
    assert checked.faults == [] and checked.files == 4
    (workspace.evidence / "a-gate" / "champion-answers.jsonl").write_text("changed by hand\n")
    assert len(check_record(registry.record, workspace=workspace, registries=[registry]).faults) == 1


@pytest.mark.parametrize("killed_at", [0, 4, len(erasure._PLACES)])
def test_killed_half_way_the_next_call_finishes(
    command: Command, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    places = list(erasure._PLACES)
    places.insert(killed_at, killed)
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_PLACES", tuple(places))
        command("erase", "--user", "anna", "--yes")
    assert list(workspace.erasures.glob("*.db"))
    done = command("prune", "--keep", "1000")  # any other one will do
    assert "finished first" in done.output
    assert found_in(workspace.root, "kanarie") == []
    entries = PromotionRecord(workspace.promotion_record).entries(NAME)
    assert [entry.kind for entry in entries].count("erasure") == 1
    assert "version 2 of ontopic-banking was trained on some of it" in entries[-1].facts["trained"]
    registry = open_registry(workspace, NAME)
    assert check_record(registry.record, workspace=workspace, registries=[registry]).faults == []


def test_beside_a_watch_it_is_gone_through_once_more(command: Command, workspace: Workspace) -> None:
    with FileLock(workspace.lock):
        done = command("erase", "--user", "anna", "--yes")
        assert "it erases once more what it is writing now" in done.output
        (workspace.reports / "new.json").write_text(json.dumps([{"question": "kanarieE 🙂🏦"}]))
        erasure.finish(workspace, tell=print)
    assert found_in(workspace.root, "kanarie") == []
    assert not list(workspace.erasures.glob("*.db"))


def test_retention_reaches_the_same_places(command: Command, workspace: Workspace) -> None:
    with TrafficStore(workspace.traffic, NAME) as store:
        last = store.records(ids=["talk-6"])[0]
        store.add(
            last.model_copy(update={"id": "new", "question": "new robin", "asked_at": NOON + 5 * HOUR, "messages": ()})
        )
    done = command("prune", "--keep", "1")
    assert "11 records were deleted, 1 are left" in done.output
    spooled = [name for name in found_in(workspace.root, "kanarie") if "spool/waits" not in name]
    # The newest record repeats one answer, which stays its own.
    assert [name for name in spooled if found_in(workspace.root, "kanarieB")] == []
    assert not found_in(workspace.reports, "kanarieG")


def test_it_is_found_in_no_database_either(
    made: Path, tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", postgres_database)
    workspace = made_state(tmp_path / "state", postgres_database)
    arguments = ["traffic", "erase", "--user", "anna", "--yes", "--state", str(workspace.root)]
    done = CliRunner().invoke(run.app, arguments)
    assert done.exit_code == 0, done.output
    assert found_in(workspace.root, "kanarie") == []
    assert found_in_database(postgres_database, "kanarie", JAPANESE) == []
    assert {"traffic", "lines", "parts"} <= set(found_in_database(postgres_database, "robin"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "exactly one of --user, --conversation and --record"),
        (("--user", "anna", "--record", "talk-1"), "exactly one"),
        (("--user", " "), "exactly one"),
        (("--user", "nobody", "--yes"), "nothing of this user is stored"),
        (("--user", "anna"), "9 records will be erased for good, everywhere they went; nobody is there to say yes"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_goes(
    command: Command, workspace: Workspace, arguments: tuple[str, ...], told: str
) -> None:
    done = command("erase", *arguments)
    assert isinstance(done.exception, UserError)
    assert told in str(done.exception)
    with TrafficStore(workspace.traffic, NAME) as store:
        assert store.count() == 11
    assert not list(workspace.erasures.glob("*.db"))


def test_what_cannot_be_erased_is_named(command: Command, workspace: Workspace) -> None:
    broken = workspace.reports / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    done = command("erase", "--user", "anna", "--yes")
    assert "NOT erased: reports/broken.parquet: it cannot be read or written" in done.output


def test_the_key_of_users_is_the_owners_alone(workspace: Workspace) -> None:
    assert oct(workspace.user_key.stat().st_mode)[-3:] == "600"
    with TrafficStore(workspace.traffic, NAME) as store:
        (user,) = {record.user for record in store.records()} - {""}
    assert len(user) == 32


@pytest.fixture
def shared(workspace: Workspace, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The database that the folder's state was moved to, which other machines share."""
    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    moved = CliRunner().invoke(run.app, ["state", "move", "--state", str(workspace.root)])
    assert moved.exit_code == 0, moved.output
    return postgres_database


def test_nothing_of_a_user_is_found_in_what_machines_share(command: Command, workspace: Workspace, shared: str) -> None:
    held = found_in_database(shared, "kanarie")
    assert {"lines", "parts", "traffic", "members", "actions", "replays"} <= set(held)
    done = command("erase", "--user", "anna", "--yes")
    assert done.exit_code == 0, done.output
    assert found_in_database(shared, "kanarie") == found_in_database(shared, JAPANESE) == []
    assert found_in(workspace.root, "kanarie") == []  # nor in what is left of it in the folder
    assert "robin" in workspace.files.read(workspace.evidence / "a-gate" / "champion-answers.jsonl").decode()
    assert len(LabelStore(workspace.lines(workspace.labels / "banking.jsonl")).labels()) == 6
    registry = open_registry(workspace, NAME)
    checked = check_record(registry.record, workspace=workspace, registries=[registry])
    assert checked.faults == [] and checked.files == 4
    assert workspace.files.within(workspace.erasures) == []


def test_killed_half_way_another_machine_finishes(
    command: Command, workspace: Workspace, shared: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_PLACES", (*erasure._PLACES[:1], killed))
        command("erase", "--user", "anna", "--yes")
    assert found_in_database(shared, "kanarie")
    root, told = tmp_path / "another machine", list[str]()
    made_registry(root, name=NAME)
    erasure.finish(Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}"), tell=told.append)
    assert told[0] == "an erasure that was begun and not finished is finished first"
    assert found_in_database(shared, "kanarie") == []
    assert not list((root / "erasures").glob("*.db"))
    command("prune", "--keep", "1000")  # the first machine has files of its own to go through
    assert found_in(workspace.root, "kanarie") == []
    assert [entry.kind for entry in PromotionRecord.of(workspace).entries(NAME)].count("erasure") >= 1
