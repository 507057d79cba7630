"""A retraining that `watch` asks for: the improve pipeline on windows of stored traffic."""

from __future__ import annotations

from collections.abc import Callable

from zenml import save_artifact

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.evaluation.gate import check_judge
from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import Workspace
from ontopic.watch.retraining import Improved, Improvement
from pipelines.attempt import evidence, gate_sample, improved
from pipelines.improve import improve
from pipelines.lost_results import forget_lost_results
from pipelines.running import finished


def improve_on_traffic(
    settings: Settings, policy: Policy, *, workspace: Workspace, by: str | None
) -> Callable[[Improvement], Improved]:
    """What `ontopic.watch.watcher.Watcher` retrains with: the improve pipeline on the active ZenML stack.

    Args:
        by: who started `watch`; ``None`` where the machine does not say.
    """

    def retrain(wanted: Improvement) -> Improved:
        forget_lost_results(workspace, policy.registered_model)
        check_judge(wanted.card, policy)  # before a model is trained that could not be promoted
        run = finished(
            improve,
            policy,
            workspace=workspace,
            called=f"improve v{wanted.champion} on watched traffic",
            cluster=settings.cluster,
            judged_artifact=str(save_artifact(wanted.judged, "watched_traffic").id),
            sample=gate_sample(settings, policy, more=wanted.held_out),
            champion=wanted.champion,
            judge_card=wanted.card.model_copy(update={"groups": ()}),  # hundreds, which no step reads
            settings=_giving_way(settings),
            evidence=evidence(policy, by=by, at=wanted.at),
        )
        return improved(run, open_registry(workspace, policy.registered_model))

    return retrain


def _giving_way(settings: Settings) -> Settings:
    """With a training that leaves a core to the service beside it, where nothing else is set; not on a GPU."""
    import joblib  # both take time that `watch` need not wait until it trains
    import torch

    training = settings.training
    if training.apart or torch.cuda.is_available():
        return settings
    threads = max(1, joblib.cpu_count() // 2)
    return settings.model_copy(update={"training": training.model_copy(update={"threads": threads})})
