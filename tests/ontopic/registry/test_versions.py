"""Versions with their weights: fetched with their base, and anew where the registry has others under the number."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from ontopic.errors import UserError
from ontopic.registry import versions
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import RegisteredModel, find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace

NAME = "a model"


@pytest.fixture
def workspace(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = open_workspace(state_before)
    open_tracking(workspace, "x")
    return workspace


def register(workspace: Workspace, weights: str, base: str | None = None) -> RegisteredModel:
    folder = workspace.root / "made"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(weights)
    with mlflow.start_run() as run:
        return versions.register(
            NAME,
            folder,
            workspace=workspace,
            digest=folder_sha256(folder),
            run_id=run.info.run_id,
            tags={versions.BASE_VERSION: base} if base else {},
        )


def test_weights_are_fetched_once_and_with_their_base(workspace: Workspace) -> None:
    assert register(workspace, "base").folder == workspace.registry / NAME / "1"
    register(workspace, "adapter", "1")
    shutil.rmtree(workspace.registry)  # as on another machine
    found = find(NAME, "2", workspace=workspace)
    assert (found.folder / "weights").read_text() == "adapter"
    assert (found.folder.with_name("1") / "weights").read_text() == "base"
    assert {path.name for path in found.folder.parent.iterdir() if path.is_dir()} == {"1", "2"}
    before = (found.folder / "weights").stat().st_ino
    find(NAME, "2", workspace=workspace)
    assert (found.folder / "weights").stat().st_ino == before


def test_a_model_that_was_deleted_and_made_anew_has_its_own_weights(workspace: Workspace) -> None:
    register(workspace, "the first's")
    assert (find(NAME, "1", workspace=workspace).folder / "weights").read_text() == "the first's"
    mlflow.MlflowClient().delete_registered_model(NAME)
    again = register(workspace, "the second's")
    assert again.version == "1"
    assert (again.folder / "weights").read_text() == "the second's"


def test_a_base_that_was_deleted_is_told_where_its_weights_are_gone(workspace: Workspace) -> None:
    register(workspace, "base")
    register(workspace, "adapter", "1")
    mlflow.MlflowClient().delete_model_version(NAME, "1")
    assert find(NAME, "2", workspace=workspace).version == "2"
    shutil.rmtree(workspace.registry)
    with pytest.raises(UserError, match="version 2 of 'a model' is an adapter of version 1, which was deleted"):
        find(NAME, "2", workspace=workspace)
