"""A registry whose artifacts are in an object store: all of a version is there, and is fetched once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from object_store import mlflow_in_store
from older_registries import older_registry
from whole_models import NAME, random_adapter, said, tiny_model

from ontopic.registry import versions
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.registering import bring_along, register_base, register_trained


@pytest.fixture
def theirs(state_before: Path) -> Iterator[str]:
    """The tracking URI of an MLflow of the user's, whose artifacts are in an object store."""
    yield from mlflow_in_store(state_before / "mlflow.db", NAME)


def machine(root: Path) -> Workspace:
    workspace = open_workspace(root)
    open_tracking(workspace, NAME)
    assert not workspace.owns_mlflow
    return workspace


@pytest.mark.slow
def test_another_machine_has_the_whole_version_from_the_store_alone(
    theirs: str, model_folder: Path, tmp_path: Path
) -> None:
    first = machine(tmp_path / "first")
    folder = tiny_model(first.models / "tiny", model_folder)
    with mlflow.start_run() as run:
        base = register_base(NAME, folder, workspace=first, run_id=run.info.run_id, tags={})
    adapter = random_adapter(first.training / "0" / "adapter", base.folder)
    with mlflow.start_run() as run:
        version = register_trained(adapter, base, precision="float32", workspace=first, run_id=run.info.run_id, tags={})
    kept = version.folder / "model.safetensors"
    expected, written = said(version.folder), kept.stat().st_mtime_ns
    assert find(NAME, "2", workspace=first).folder / "model.safetensors" == kept
    assert kept.stat().st_mtime_ns == written  # what was sent is not fetched
    assert len({path.stat().st_ino for path in first.root.rglob("model.safetensors")}) == 2
    (tmp_path / "first").rename(tmp_path / "gone")

    second = machine(tmp_path / "zweite Maschine in Zürich")
    found = find(NAME, "challenger", workspace=second)
    assert found.folder.is_relative_to(second.root)
    assert folder_sha256(found.folder) == found.digest == version.digest
    assert said(found.folder) == expected
    assert [path.name for path in found.folder.parent.iterdir() if path.is_dir()] == ["2"]  # no base is needed
    fetched = (found.folder / "model.safetensors").stat().st_ino
    assert (find(NAME, "2", workspace=second).folder / "model.safetensors").stat().st_ino == fetched


@pytest.mark.slow
def test_older_versions_in_a_store_are_brought_along(theirs: str, model_folder: Path, tmp_path: Path) -> None:
    first = machine(tmp_path / "first")
    *_, second_whole = older_registry(first, tiny_model(first.models / "tiny", model_folder))
    lines: list[str] = []
    bring_along(NAME, workspace=first, say=lines.append)
    assert len(lines) == 3
    shutil.rmtree(first.registry)
    for number in "123":
        found = find(NAME, number, workspace=first)
        assert folder_sha256(found.folder) == found.digest
        assert not (found.folder / "adapter_config.json").exists()
        assert versions.MADE_FROM in open_registry(first, NAME).tags_of(number)
    assert said(find(NAME, "2", workspace=first).folder) == said(second_whole)
