"""Fine-tune the champion on preferences with ORPO and register the result as the challenger."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.training_settings import TrainingSettings
from ontopic.models import loading as models
from ontopic.registry import versions as registry
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace
from ontopic.training import orpo, processes
from ontopic.training.preferences import Preferences, preferences_hash
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def train_challenger(
    *,
    pairs: Preferences,
    registered_model: str,
    champion: str,
    model: ModelSettings,
    settings: TrainingSettings,
    workspace: Workspace,
) -> Annotated[str, "challenger"]:
    """Returns the challenger's version."""
    champion_model = registry.find(registered_model, champion, workspace=workspace)
    chosen = pairs.root
    pairs_hash = preferences_hash(chosen)
    # The same inputs share a folder, so that a run that died goes on from its last checkpoint.
    inputs = json.dumps([champion_model.digest, pairs_hash, settings.model_dump(mode="json")])
    work = workspace.training / hashlib.sha256(inputs.encode()).hexdigest()[:16]
    mlflow.log_params({f"training_{name}": value for name, value in settings.model_dump().items()})

    def log(metrics: dict[str, float], at: int) -> None:
        mlflow.log_metrics(metrics, step=at)

    folder = champion_model.folder
    if settings.processes > 1:
        result = processes.train_in_processes(
            folder, model.precision, preferences=chosen, settings=settings, work=work, log_metrics=log
        )
    else:
        result = orpo.train_orpo(
            models.load(folder, model.precision),
            folder,
            preferences=chosen,
            settings=settings,
            work=work,
            log_metrics=log,
        )
    run = mlflow.active_run()
    assert run is not None
    version = registry.register(
        registered_model,
        result.adapter,
        digest=folder_sha256(result.adapter),
        run_id=run.info.run_id,
        workspace=workspace,
        tags={
            "ontopic.kind": "orpo-lora",
            registry.BASE_VERSION: champion,
            "ontopic.base_digest": champion_model.digest,
            "ontopic.preferences_sha256": pairs_hash,
            "ontopic.preferences": str(len(chosen)),
        },
        challenger=True,
    )
    return version.version
