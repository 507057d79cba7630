"""What a training leaves behind, and what of it a run that died before the registration goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from whole_models import random_adapter, tiny_model

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.preferences import Preference, Preferences, preferences_hash
from ontopic.training.registering import register_base
from steps.train_challenger import train_challenger, work_folder

PAIRS = Preferences(
    [
        Preference(
            question="how do I block my card",
            chosen="Open the app and choose block.",
            rejected="No.",
            in_scope=True,
            source="reference",
            record_id="",
        )
    ]
)
SETTINGS = TrainingSettings.model_validate(
    {"beta": 0.2, "learning_rate": 1e-3, "epochs": 1, "batch_size": 2, "save_steps": 1, "max_rejected_tokens": 8}
)


@pytest.fixture
def workspace(tmp_path: Path, banking: Policy) -> Iterator[Workspace]:
    workspace = open_workspace(tmp_path / "state")
    open_tracking(workspace, banking.registered_model)
    yield workspace
    mlflow.set_tracking_uri(None)


def test_a_whole_adapter_is_registered_without_training_and_no_checkpoints_stay(
    workspace: Workspace, banking: Policy, model_folder: Path, tmp_path: Path
) -> None:
    name = banking.registered_model
    folder = tiny_model(tmp_path / "tiny", model_folder)
    with mlflow.start_run() as run:
        tags = {KIND: OF_BASE}
        base = register_base(name, folder, workspace=workspace, run_id=run.info.run_id, tags=tags)
    open_registry(workspace, name).ensure_champion(base.version)
    work = work_folder(base.digest, preferences_hash(PAIRS.root), settings=SETTINGS, workspace=workspace)
    random_adapter(work / "adapter", folder)
    (work / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    with mlflow.start_run():
        version = train_challenger.entrypoint(
            pairs=PAIRS,
            champion=base.version,
            model=ModelSettings(name="tiny", max_new_tokens=8),
            settings=SETTINGS,
            policy=banking,
            workspace=workspace,
        )
    trained = find(name, version, workspace=workspace).folder / "adapter" / "adapter_model.safetensors"
    assert trained.read_bytes() == (work / "adapter" / "adapter_model.safetensors").read_bytes()
    assert [path.name for path in work.iterdir()] == ["adapter"]
