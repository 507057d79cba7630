"""Fine-tune the base model or the champion on preferences with ORPO and register the result as the challenger."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.registry.base_version import KIND
from ontopic.registry.erased_runs import PREFERENCES
from ontopic.registry.promotions import BASE
from ontopic.registry.versions import RegisteredModel
from ontopic.state.workspace import Workspace
from ontopic.training.preferences import Preference, Preferences, preferences_hash
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

    from ontopic.models.freed_memory import hand_back
    from ontopic.registry.versions import find
    from ontopic.training.earlier_pairs import all_pairs
    from ontopic.training.registering import register_trained

    which = BASE if settings.start == "base" else champion
    start = find(policy.registered_model, which, workspace=workspace)
    chosen = all_pairs(pairs.root, champion, settings=settings, policy=policy, workspace=workspace)
    pairs_hash = preferences_hash(chosen)
    mlflow.log_params({"preferences_sha256": pairs_hash, "preferences": len(chosen)})
    mlflow.log_params({"preferences_earlier": len(chosen) - len(pairs.root), "start_version": start.version})
    mlflow.log_table(pd.DataFrame([pair.model_dump(mode="json") for pair in chosen]), PREFERENCES)
    work = work_folder(start.digest, pairs_hash, settings=settings, workspace=workspace)
    mlflow.log_params({f"training_{name}": value for name, value in settings.model_dump().items()})

    adapter = work / "adapter"
    if not adapter.is_dir():  # else it is whole, of a run that ended before its version was registered
        _train(chosen, start, model=model, settings=settings, work=work)
        hand_back()
    run = mlflow.active_run()
    assert run is not None
    version = register_trained(
        adapter,
        start,
        precision=model.training_precision,
        workspace=workspace,
        run_id=run.info.run_id,
        tags={
            KIND: "orpo-lora",
            "ontopic.preferences_sha256": pairs_hash,
            "ontopic.preferences": str(len(chosen)),
        },
    )
    shutil.rmtree(work / "checkpoints", ignore_errors=True)  # what a killed run goes on from, several adapters large
    return version.version


def work_folder(base_digest: str, pairs_sha256: str, *, settings: TrainingSettings, workspace: Workspace) -> Path:
    """Where checkpoints and adapter are: the same inputs share a folder, so that a run that died goes on from them."""
    inputs = json.dumps([base_digest, pairs_sha256, settings.model_dump(mode="json")])
    return workspace.training / hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _train(
    pairs: Sequence[Preference], start: RegisteredModel, *, model: ModelSettings, settings: TrainingSettings, work: Path
) -> None:
    """Train the adapter in ``work``, with its metrics in MLflow."""
    import mlflow

    def log(metrics: dict[str, float], at: int) -> None:
        mlflow.log_metrics(metrics, step=at)

    if settings.apart:
        from ontopic.training.processes import train_in_processes

        train_in_processes(
            start.folder, model.training_precision, preferences=pairs, settings=settings, work=work, log_metrics=log
        )
        return
    from ontopic.models.loading import load
    from ontopic.training.orpo import train_orpo

    base = load(start.folder, model.training_precision)
    train_orpo(base, start.folder, preferences=pairs, settings=settings, work=work, log_metrics=log)
