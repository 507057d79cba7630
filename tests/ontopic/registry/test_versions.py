"""Versions with their files: used where they are, or fetched once, and anew where the registry has others under the
number."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from object_store import mlflow_in_store

from ontopic.registry import versions
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import RegisteredModel, find, weights_now
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace

NAME = "a model"


@pytest.fixture(params=["state folder", "object store"])
def workspace(
    request: pytest.FixtureRequest, state_before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if request.param == "state folder":
        workspace = open_workspace(state_before)
        open_tracking(workspace, "x")
        yield workspace
        return
    for _ in mlflow_in_store(state_before / "mlflow.db", "x"):
        workspace = open_workspace(tmp_path / "mine")
        open_tracking(workspace, "x")
        yield workspace


def register(workspace: Workspace, weights: str, **tags: str) -> RegisteredModel:
    folder = workspace.root / "made"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "weights").write_text(weights)
    digest = folder_sha256(folder)
    with mlflow.start_run() as run:
        return versions.register(NAME, folder, workspace=workspace, digest=digest, run_id=run.info.run_id, tags=tags)


def test_files_are_used_where_they_are_or_fetched_once(workspace: Workspace) -> None:
    first = register(workspace, "weights")
    if workspace.owns_mlflow:
        assert first.folder.is_relative_to(workspace.artifacts)
        assert not workspace.registry.exists()
    else:
        assert first.folder == workspace.registry / NAME / "1"
        shutil.rmtree(workspace.registry)  # as on another machine
    found = find(NAME, "1", workspace=workspace)
    assert (found.folder / "weights").read_text() == "weights"
    assert found == first
    before = (found.folder / "weights").stat().st_ino
    find(NAME, "1", workspace=workspace)
    assert (found.folder / "weights").stat().st_ino == before
    assert weights_now(NAME, "1", workspace=workspace) == (first.digest,)


def test_a_model_that_was_deleted_and_made_anew_has_its_own_weights(workspace: Workspace) -> None:
    register(workspace, "the first's")
    assert (find(NAME, "1", workspace=workspace).folder / "weights").read_text() == "the first's"
    mlflow.MlflowClient().delete_registered_model(NAME)
    again = register(workspace, "the second's")
    assert again.version == "1"
    assert (again.folder / "weights").read_text() == "the second's"


def test_what_was_made_of_the_same_is_the_same_version(workspace: Workspace) -> None:
    first = register(workspace, "one", **{versions.MADE_FROM: "an adapter"})
    assert register(workspace, "two", **{versions.MADE_FROM: "an adapter"}) == first
    assert register(workspace, "two", **{versions.MADE_FROM: "another"}).version == "2"
    assert register(workspace, "two").version == "2"


def test_other_files_take_the_place_of_a_versions(workspace: Workspace) -> None:
    first = register(workspace, "an adapter's")
    other = workspace.root / "other"
    (other / "below").mkdir(parents=True)
    (other / "below" / "whole").write_text("a model's")
    assert not versions.older(NAME, workspace=workspace)
    mlflow.MlflowClient().delete_model_version_tag(NAME, "1", "ontopic.whole")
    assert versions.older(NAME, workspace=workspace).keys() == {"1"}
    now = versions.replace(first, other, workspace=workspace)
    assert now.digest == folder_sha256(other) == folder_sha256(now.folder) != first.digest
    if not workspace.owns_mlflow:
        shutil.rmtree(workspace.registry)
        assert folder_sha256(find(NAME, "1", workspace=workspace).folder) == now.digest
    assert not versions.older(NAME, workspace=workspace)
