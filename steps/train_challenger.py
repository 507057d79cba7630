"""Fine-tune the base model or the champion on preferences with ORPO and register the result as the challenger."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

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
from steps.checkpoints import KeptCheckpoints


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
    """Returns the challenger's version; what it was trained on is kept with its run, for the next round.

    The training is an MLflow run of its own within the pipeline's, and the version's.
    """
    import mlflow

    from ontopic.registry.versions import find
    from ontopic.training.earlier_pairs import all_pairs

    which = BASE if settings.start == "base" else champion
    start = find(policy.registered_model, which, workspace=workspace)
    chosen = all_pairs(pairs.root, champion, settings=settings, policy=policy, workspace=workspace)
    on = f"{len(chosen):,} pairs from v{champion}'s traffic"
    with mlflow.start_run(run_name=f"train on {on}", nested=True) as run:
        _track(chosen, earlier=len(chosen) - len(pairs.root), champion=champion)
        mlflow.log_param("start_version", start.version)
        mlflow.log_params({f"training_{name}": value for name, value in settings.model_dump().items()})
        version = _trained(chosen, start, model=model, settings=settings, workspace=workspace, run_id=run.info.run_id)
        mlflow.set_tags({"mlflow.runName": f"train v{version}: {on}", "model_version": version})
    return version


def _track(chosen: Sequence[Preference], *, earlier: int, champion: str) -> None:
    """What is trained on, as a table and as a data set of the run."""
    import mlflow
    import pandas as pd

    from ontopic.registry.tracking import log_data_set

    table, sha256 = pd.DataFrame([pair.model_dump(mode="json") for pair in chosen]), preferences_hash(chosen)
    mlflow.log_params({"preferences_sha256": sha256, "preferences": len(chosen), "preferences_earlier": earlier})
    mlflow.log_table(table, PREFERENCES)
    about = table[["in_scope", "source"]]
    log_data_set(about, f"preferences of v{champion}'s traffic", context="training", sha256=sha256)
    mlflow.set_tag("stage", "training")


def _trained(
    chosen: Sequence[Preference],
    start: RegisteredModel,
    *,
    model: ModelSettings,
    settings: TrainingSettings,
    workspace: Workspace,
    run_id: str,
) -> str:
    """The version that is registered once the adapter is trained."""
    from ontopic.models.freed_memory import hand_back
    from ontopic.training.registering import register_trained

    sha256 = preferences_hash(chosen)
    work = work_folder(start.digest, sha256, settings=settings, workspace=workspace)
    adapter, kept = work / "adapter", _kept_elsewhere(work, workspace)
    if not adapter.is_dir():  # else it is whole, of a run that ended before its version was registered
        if kept is not None:
            kept.fetch(work / "checkpoints")
        _train(chosen, start, model=model, settings=settings, work=work, kept=kept)
        hand_back()
    version = register_trained(
        adapter,
        start,
        precision=model.training_precision,
        workspace=workspace,
        run_id=run_id,
        tags={KIND: "orpo-lora", "ontopic.preferences_sha256": sha256, "ontopic.preferences": str(len(chosen))},
    )
    shutil.rmtree(work / "checkpoints", ignore_errors=True)  # what a killed run goes on from, several adapters large
    if kept is not None:
        kept.remove()
    return version.version


def _kept_elsewhere(work: Path, workspace: Workspace) -> KeptCheckpoints | None:
    """The training's checkpoints in the artifact store, where this machine's folder does not last."""
    if not workspace.is_passing:
        return None
    from zenml.client import Client

    return KeptCheckpoints(Client().active_stack.artifact_store, work.name)


def work_folder(base_digest: str, pairs_sha256: str, *, settings: TrainingSettings, workspace: Workspace) -> Path:
    """Where checkpoints and adapter are: the same inputs share a folder, so that a run that died goes on from them."""
    inputs = json.dumps([base_digest, pairs_sha256, settings.model_dump(mode="json")])
    return workspace.training / hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _train(
    pairs: Sequence[Preference],
    start: RegisteredModel,
    *,
    model: ModelSettings,
    settings: TrainingSettings,
    work: Path,
    kept: KeptCheckpoints | None,
) -> None:
    """Train the adapter in ``work``, with its metrics in MLflow."""
    import mlflow

    def log(metrics: dict[str, float], at: int) -> None:
        mlflow.log_metrics(metrics, step=at)

    wanted: dict[str, Any] = {"preferences": pairs, "settings": settings, "work": work, "log_metrics": log}
    wanted["keep_checkpoint"] = kept.keep if kept is not None else None
    if settings.apart:
        from ontopic.training.processes import train_in_processes

        train_in_processes(start.folder, model.training_precision, **wanted)
        return
    from ontopic.models.loading import load
    from ontopic.training.orpo import train_orpo

    base = load(start.folder, model.training_precision)
    train_orpo(base, start.folder, **wanted)
