"""A state folder that was moved or copied: nothing in it goes by the old path, and the original is left alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from filelock import FileLock

from ontopic.errors import UserError
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.promotions import open_registry
from ontopic.registry.unnamed import named
from ontopic.state import moved
from ontopic.state.moved import settle
from ontopic.state.workspace import Workspace, open_workspace


def held(folder: Path) -> Iterator[bytes]:
    """All that stands in a folder, and what of it is packed in base64."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()
        if path.suffix == ".db":
            with closing(sqlite3.connect(path)) as database:
                tables = database.execute("SELECT name FROM sqlite_master WHERE name = 'stack_component'").fetchall()
                for _ in tables:
                    yield from (base64.b64decode(row[0]) for row in database.execute("SELECT * FROM stack_component"))


def forms(path: Path) -> set[bytes]:
    return {str(path).encode(), quote(str(path)).encode(), json.dumps(str(path))[1:-1].encode()}


def names(folder: Path, path: Path) -> bool:
    return any(form in content for content in held(folder) for form in forms(path))


def made_at(folder: Path) -> Workspace:
    """A folder in which each kind of place names it, as MLflow and ZenML write them."""
    workspace = open_workspace(folder)
    (workspace.zenml / "artifacts").mkdir(parents=True)
    (workspace.zenml / "artifacts" / "data.json").write_text(json.dumps({"report": f"{folder}/reports/a.html"}))
    checkpoint = workspace.training / "0" / "checkpoints" / "trainer_state.json"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text(json.dumps({"best": f"{folder}/training/0"}, indent=2))
    store = {"url": f"sqlite:///{folder}/zenml/zenml.db", "database": f"{folder}/zenml/zenml.db"}
    (workspace.zenml / "config.yaml").write_text(yaml.safe_dump({"store": store, "version": "0.98.0"}))
    with closing(sqlite3.connect(workspace.zenml / "zenml.db")) as database, database:
        database.execute("CREATE TABLE stack_component (configuration BLOB)")
        packed = base64.b64encode(json.dumps({"path": f"{folder}/zenml/artifacts"}).encode())
        database.execute("INSERT INTO stack_component VALUES (?)", [packed])
    with closing(sqlite3.connect(workspace.mlflow_file)) as database, database:
        database.execute("CREATE TABLE experiments (artifact_location TEXT, note TEXT, n INTEGER)")
        note = json.dumps({"why": f"passed: {folder}/reports/gate.html", "in": json.dumps({"root": str(folder)})})
        database.execute("INSERT INTO experiments VALUES (?, ?, 7)", [workspace.artifacts.as_uri(), note])
    return workspace


@pytest.mark.parametrize("old", ["state", "my stäte", "a/b", "x.y"])
@pytest.mark.parametrize("new", ["another", "state 2", "état & more'\"", "state/inside", "state.old", "50% off"])
def test_nothing_names_the_old_path(tmp_path: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, here = tmp_path / "o" / old, tmp_path / "n" / new
    made_at(before)
    here.parent.mkdir(parents=True)
    before.rename(here)
    workspace = open_workspace(here)
    settle(workspace)
    assert not names(here, before)
    with closing(sqlite3.connect(workspace.mlflow_file)) as database:
        ((location, note, n),) = database.execute("SELECT * FROM experiments").fetchall()
    assert (location, n) == (workspace.artifacts.as_uri(), 7)
    said = json.loads(note)
    assert said["why"] == f"passed: {here}/reports/gate.html"
    assert json.loads(said["in"]) == {"root": str(here)}
    configuration = yaml.safe_load((workspace.zenml / "config.yaml").read_text(encoding="utf-8"))
    assert configuration["store"]["url"] == f"sqlite:///{here}/zenml/zenml.db"
    assert capsys.readouterr().err == f"the state folder was at {before} before; what is in it goes by {here} now\n"
    settle(workspace)
    assert capsys.readouterr().err == ""


def test_a_folder_that_was_moved_into_itself_is_renamed_once(tmp_path: Path) -> None:
    before = tmp_path / "state"
    made_at(before)
    shutil.copytree(before, here := tmp_path / "held" / "state")
    shutil.copytree(here, before / "copy")
    for at in (before / "copy", before / "copy"):  # as after a kill, before the place is written
        (at / "place").unlink(missing_ok=True)
        (at / "place").write_text(str(before))
        settle(open_workspace(at))
        assert json.loads((at / "zenml/artifacts/data.json").read_text()) == {"report": f"{at}/reports/a.html"}


def test_another_folder_whose_name_begins_alike_is_not_meant(tmp_path: Path) -> None:
    before, here = tmp_path / "state", tmp_path / "new"
    workspace = made_at(before)
    others = [f"{before}2/x", f"{before}.old/x", f"/deep{before}/x", f"{before} 2/x", f"see file://{before}-b/x"]
    (workspace.zenml / "artifacts" / "others.json").write_text(json.dumps(others))
    before.rename(here)
    settle(open_workspace(here))
    assert json.loads((here / "zenml/artifacts/others.json").read_text()) == others


def test_a_copy_leaves_the_original_alone(tmp_path: Path) -> None:
    before, here = tmp_path / "state", tmp_path / "copy"
    made_at(before).service.write_text("{}")
    shutil.copytree(before, here)
    kept = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before.rglob("*") if path.is_file()}
    settle(open_workspace(here))
    assert not names(here, before)
    assert not (here / "serving.json").exists()  # the original's service
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before.rglob("*") if path.is_file()} == kept


def test_killed_in_between_the_next_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, here = tmp_path / "state", tmp_path / "moved"
    made_at(before)
    settle(open_workspace(before))
    before.rename(here)
    rewrite = moved._rewrite_file

    def killed(path: Path, renamed: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(moved, "_rewrite_file", killed)
    with pytest.raises(KeyboardInterrupt):
        settle(open_workspace(here))
    assert names(here, before)
    monkeypatch.setattr(moved, "_rewrite_file", rewrite)
    settle(open_workspace(here))
    assert not names(here, before)


def test_a_folder_in_use_by_another_path_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, here = tmp_path / "state", tmp_path / "moved"
    made_at(before)
    before.rename(here)
    monkeypatch.setattr(moved, "_WAIT_S", 0.1)
    with FileLock(here / "run.lock"), pytest.raises(UserError, match=r"a run uses .* by another path; let it end"):
        settle(open_workspace(here))
    assert names(here, before)


def test_a_folder_of_the_release_before_is_brought_along(state_before: Path) -> None:
    workspace = open_workspace(state_before)
    with closing(sqlite3.connect(workspace.mlflow_file)) as database:
        query = "SELECT artifact_location FROM experiments WHERE name = 'ontopic-banking'"
        ((location,),) = database.execute(query).fetchall()
    settle(workspace)
    assert not any(str(location).removeprefix("file://").encode() in content for content in held(state_before))
    assert open_registry(workspace, "ontopic-banking").champion() == "1"
    with named(WindowStore(workspace.windows, "ontopic-banking"), workspace) as windows:
        pages = [window.result.report for window in windows.closed(-1) if window.result]
    assert pages and all(Path(page).is_relative_to(state_before) for page in pages)


def test_a_folder_that_may_not_be_written_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, here = tmp_path / "state", tmp_path / "moved"
    made_at(before)
    before.rename(here)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    settle(Workspace(root=here))
    assert names(here, before)
    assert not (here / "place").exists()
