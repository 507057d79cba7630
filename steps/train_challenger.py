"""Fine-tune the base model or the champion on preferences with ORPO and register the result as the challenger."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.registry.erased_runs import PREFERENCES
from ontopic.registry.promotions import BASE, KIND
from ontopic.state.workspace import Workspace
from ontopic.training.preferences import Preferences, preferences_hash
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def train_challenger(
    *,
    pairs: Preferences,
    champion: str,
    model: ModelSettings,
    settings: TrainingSettings,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[str, "challenger"]:
    """Returns the challenger's version; what it was trained on is kept with its run, for the next round."""
    import mlflow
    import pandas as pd

    from ontopic.models import loading as models
    from ontopic.registry import versions as registry
    from ontopic.training import orpo, processes
    from ontopic.training.earlier_pairs import all_pairs
    from ontopic.training.registering import register_trained

    which = BASE if settings.start == "base" else champion
    start = registry.find(policy.registered_model, which, workspace=workspace)
    chosen = all_pairs(pairs.root, champion, settings=settings, policy=policy, workspace=workspace)
    pairs_hash = preferences_hash(chosen)
    mlflow.log_params({"preferences_sha256": pairs_hash, "preferences": len(chosen)})
    mlflow.log_params({"preferences_earlier": len(chosen) - len(pairs.root), "start_version": start.version})
    mlflow.log_table(pd.DataFrame([pair.model_dump(mode="json") for pair in chosen]), PREFERENCES)
    # The same inputs share a folder, so that a run that died goes on from its last checkpoint.
    inputs = json.dumps([start.digest, pairs_hash, settings.model_dump(mode="json")])
    work = workspace.training / hashlib.sha256(inputs.encode()).hexdigest()[:16]
    mlflow.log_params({f"training_{name}": value for name, value in settings.model_dump().items()})

    def log(metrics: dict[str, float], at: int) -> None:
        mlflow.log_metrics(metrics, step=at)

    folder = start.folder
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
    version = register_trained(
        result.adapter,
        start,
        precision=model.precision,
        workspace=workspace,
        run_id=run.info.run_id,
        tags={
            KIND: "orpo-lora",
            "ontopic.preferences_sha256": pairs_hash,
            "ontopic.preferences": str(len(chosen)),
        },
    )
    return version.version
