"""Get the base model and register it, as the champion where there is none yet."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.settings import ModelSettings
from ontopic.models import loading as models
from ontopic.registry import versions as registry
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(models, registry))
def register_base(model: ModelSettings, registered_model: str, workspace: Workspace) -> Annotated[str, "base"]:
    """Returns the base model's version."""
    folder = models.resolve(model.name, workspace.root)
    run = mlflow.active_run()
    assert run is not None
    version = registry.register(
        registered_model,
        folder,
        digest=folder_sha256(folder),
        run_id=run.info.run_id,
        state=workspace.root,
        tags={"ontopic.source": model.name, "ontopic.kind": "base"},
    )
    registry.ensure_champion(registered_model, version.version)
    mlflow.log_params({"model": model.name, "model_digest": version.digest})
    return version.version
