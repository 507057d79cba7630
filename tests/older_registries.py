"""A registry as releases before wrote it, whose versions were adapters."""

from __future__ import annotations

from pathlib import Path

import mlflow
from whole_models import NAME, random_adapter

from ontopic.registry import versions
from ontopic.registry.promotions import COMPLETE, open_registry
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace
from ontopic.training.merging import merge


def older_registry(workspace: Workspace, base_folder: Path) -> list[Path]:
    """Three versions as releases before registered them: the base, and two adapters, each of the one before.

    Returns:
        What each was registered from, and last the whole model that the second is.
    """
    first, second = workspace.root / "made 2", workspace.root / "made 3"
    whole = workspace.root / "made 2, whole"
    merge(random_adapter(first, base_folder, 2), base_folder, into=whole)
    random_adapter(second, whole, 3)
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for number, folder in enumerate((base_folder, first, second), start=1):
        tags = {versions.DIGEST: folder_sha256(folder)}
        if number > 1:
            tags |= {versions.BASE_VERSION: str(number - 1), "ontopic.kind": "orpo-lora"}
        with mlflow.start_run() as run:
            client.log_artifacts(run.info.run_id, str(folder), artifact_path="model")
        client.create_model_version(NAME, f"runs:/{run.info.run_id}/model", run.info.run_id, tags=tags)
        client.set_model_version_tag(NAME, str(number), COMPLETE, "true")
    open_registry(workspace, NAME).ensure_champion("3")
    return [base_folder, first, second, whole]
