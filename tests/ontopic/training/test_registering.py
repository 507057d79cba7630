"""What is registered is whole, in one copy, and loaded by MLflow alone; versions of earlier releases become so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from loopback import ROOT
from older_registries import older_registry
from transformers import pipeline
from whole_models import ASKED, NAME, plain, random_adapter, said, tiny_model

from ontopic.errors import UserError
from ontopic.registry import versions
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import RegisteredModel, find
from ontopic.state.moved import settle
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.registering import bring_along, register_base, register_trained


@pytest.fixture
def workspace(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = open_workspace(state_before)
    settle(workspace)
    open_tracking(workspace, NAME)
    yield workspace
    mlflow.set_tracking_uri(None)


@pytest.fixture
def base_folder(workspace: Workspace, model_folder: Path) -> Path:
    return tiny_model(workspace.models / "tiny", model_folder)


def registered_base(workspace: Workspace, folder: Path) -> RegisteredModel:
    with mlflow.start_run() as run:
        base = register_base(NAME, folder, workspace=workspace, run_id=run.info.run_id, tags={"ontopic.kind": "base"})
    open_registry(workspace, NAME).ensure_champion(base.version)
    return base


def trained(workspace: Workspace, base: RegisteredModel, seed: int = 0) -> RegisteredModel:
    adapter = workspace.training / str(seed) / "adapter"
    if not adapter.exists():
        random_adapter(adapter, base.folder, seed)
    with mlflow.start_run() as run:
        return register_trained(
            adapter, base, precision="float32", workspace=workspace, run_id=run.info.run_id, tags={}
        )


def answers(loaded: Any) -> list[str]:
    """What a pipeline of Transformers says where nothing but a limit is asked for."""
    chats = [[{"role": "user", "content": text}] for text in ASKED]
    return [plain(loaded(chat, max_new_tokens=12, return_full_text=False)[0]["generated_text"]) for chat in chats]


@pytest.mark.slow
def test_a_version_is_loaded_by_mlflow_transformers_and_us_alike(workspace: Workspace, base_folder: Path) -> None:
    base = registered_base(workspace, base_folder)
    version = trained(workspace, base)
    assert (base.version, version.version, version.digest) == ("1", "2", folder_sha256(version.folder))
    assert open_registry(workspace, NAME).version("challenger") == "2"
    open_registry(workspace, NAME).promote("2", by="a test", why="it is new")
    expected = said(version.folder)
    assert expected != said(base.folder)
    assert answers(mlflow.transformers.load_model(f"models:/{NAME}@champion")) == expected
    assert answers(pipeline("text-generation", str(version.folder))) == expected


def test_its_mlmodel_has_signature_example_and_requirements(workspace: Workspace, base_folder: Path) -> None:
    folder = trained(workspace, registered_base(workspace, base_folder)).folder
    model = mlflow.models.Model.load(str(folder))
    assert model.signature.inputs.input_names()[0] == "messages"
    example = model.load_input_example(str(folder))
    assert example["messages"][0]["role"] == "user"
    served = mlflow.pyfunc.load_model(str(folder)).predict({**example, "max_tokens": 4})
    assert served[0]["choices"][0]["message"]["role"] == "assistant"
    needed = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} == {"mlflow", "torch", "transformers", "accelerate"}
    assert "+" not in "".join(needed)  # of no index but PyPI
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert str(workspace.root).encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    "before", [None, {"eos_token_id": [2, 7], "temperature": 0.7, "top_p": 0.9, "do_sample": True}]
)
def test_answers_are_greedy_where_nothing_else_is_asked_for(
    workspace: Workspace, base_folder: Path, before: dict[str, object] | None
) -> None:
    path = base_folder / "generation_config.json"
    path.unlink()
    if before is not None:
        path.write_text(json.dumps(before))
    written = json.loads((registered_base(workspace, base_folder).folder / path.name).read_text())
    assert written["do_sample"] is False
    assert written["eos_token_id"] == (before["eos_token_id"] if before else 2)
    assert not {"temperature", "top_p"} & set(written)
    assert path.is_file() == (before is not None)  # the model's own is left alone


def test_weights_are_kept_once_in_the_state_folder(workspace: Workspace, base_folder: Path) -> None:
    base = registered_base(workspace, base_folder)
    version = trained(workspace, base)
    inodes = [path.stat().st_ino for path in workspace.root.rglob("model.safetensors")]
    assert len(set(inodes)) == 2  # the base's, and the trained one's
    assert version.folder.is_relative_to(workspace.artifacts)
    assert not workspace.building.exists()
    assert not workspace.registry.exists()


def test_the_same_is_registered_once(workspace: Workspace, base_folder: Path) -> None:
    base = registered_base(workspace, base_folder)
    assert registered_base(workspace, base_folder) == base
    version = trained(workspace, base)
    assert trained(workspace, base) == version
    assert trained(workspace, base, seed=1).version == "3"
    (base_folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    assert registered_base(workspace, base_folder).version == "4"


def test_what_a_user_gave_is_copied(workspace: Workspace, model_folder: Path, tmp_path: Path) -> None:
    theirs = tiny_model(tmp_path / "theirs", model_folder)
    before = folder_sha256(theirs)
    base = registered_base(workspace, theirs)
    assert folder_sha256(theirs) == before
    with (theirs / "model.safetensors").open("r+b") as file:
        file.truncate(100)
    assert folder_sha256(base.folder) == base.digest


def test_a_moved_state_folder_goes_on(workspace: Workspace, base_folder: Path, tmp_path: Path) -> None:
    version = trained(workspace, registered_base(workspace, base_folder))
    expected = said(version.folder)
    moved = tmp_path / "nach Köln verlegt"
    workspace.root.rename(moved)
    workspace = open_workspace(moved)
    settle(workspace)
    open_tracking(workspace, NAME)
    found = find(NAME, "2", workspace=workspace)
    assert found.folder.is_relative_to(moved)
    assert folder_sha256(found.folder) == found.digest == version.digest
    assert said(found.folder) == expected == answers(mlflow.transformers.load_model(f"models:/{NAME}/2"))
    assert trained(workspace, found, seed=5).version == "3"


def test_a_model_that_names_the_old_path_is_not_rewritten(
    workspace: Workspace, base_folder: Path, tmp_path: Path
) -> None:
    """A tokenizer may have a token that is the state folder's path, such as /data."""
    (base_folder / "tokens.json").write_text(json.dumps({str(workspace.root): 1}))
    base = registered_base(workspace, base_folder)
    workspace.root.rename(tmp_path / "elsewhere")
    workspace = open_workspace(tmp_path / "elsewhere")
    settle(workspace)
    assert folder_sha256(find(NAME, "1", workspace=workspace).folder) == base.digest


@pytest.mark.slow
def test_versions_of_earlier_releases_are_brought_along(workspace: Workspace, base_folder: Path) -> None:
    *folders, second = older_registry(workspace, base_folder)
    digests = [folder_sha256(folder) for folder in folders]
    lines: list[str] = []
    bring_along(NAME, workspace=workspace, say=lines.append)
    assert [line.partition(" was ")[0] for line in lines] == [f"version {n} of '{NAME}'" for n in (1, 2, 3)]
    registry = open_registry(workspace, NAME)
    assert registry.versions() == ["1", "2", "3"]
    assert registry.champion() == "3"
    for number, digest in zip("123", digests, strict=True):
        found = find(NAME, number, workspace=workspace)
        tags = registry.tags_of(number)
        assert tags[versions.MADE_FROM] == digest
        assert tags[versions.DIGEST] == found.digest == folder_sha256(found.folder)
        assert not (found.folder / "adapter_config.json").exists()
    assert said(find(NAME, "2", workspace=workspace).folder) == said(second)
    champion = find(NAME, "3", workspace=workspace).folder
    assert answers(mlflow.transformers.load_model(f"models:/{NAME}@champion")) == said(champion) != said(second)
    bring_along(NAME, workspace=workspace, say=lines.append)
    assert len(lines) == 3
    assert registered_base(workspace, base_folder).version == "1"


def test_an_adapter_whose_base_is_gone_is_said(workspace: Workspace, base_folder: Path) -> None:
    older_registry(workspace, base_folder)
    mlflow.MlflowClient().delete_model_version(NAME, "2")
    lines: list[str] = []
    bring_along(NAME, workspace=workspace, say=lines.append)
    assert lines[-1] == f"version 3 of '{NAME}' is an adapter whose base is gone; it cannot be loaded"
    with pytest.raises(UserError, match="holds a PEFT adapter"):
        said(find(NAME, "3", workspace=workspace).folder)


def test_a_state_folder_of_the_first_release_opens(state_before: Path) -> None:
    workspace = open_workspace(state_before)
    settle(workspace)
    for name in [path.name for path in (ROOT / "configs" / "policies").glob("*.yaml")]:
        bring_along(f"ontopic-{name.removesuffix('.yaml')}", workspace=workspace, say=lambda line: pytest.fail(line))
    shutil.rmtree(state_before)


@pytest.mark.parametrize("place", ["cache", "elsewhere"])
def test_a_base_in_the_machines_cache_is_linked_and_a_users_copied(
    place: str, workspace: Workspace, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_CACHE", str(tmp_path / "cache"))
    given = tiny_model(tmp_path / place / "base", model_folder)
    kept = registered_base(workspace, given).folder
    assert (kept / "model.safetensors").samefile(given / "model.safetensors") == (place == "cache")
    shutil.rmtree(given)
    assert said(kept)
