"""A retraining that `watch` asks for: the improve pipeline on windows of stored traffic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from zenml import save_artifact
from zenml.client import Client
from zenml.enums import ExecutionMode

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labelled import source_sha256
from ontopic.evaluation.gate import check_judge
from ontopic.state.workspace import Workspace
from ontopic.watch.watcher import Improved, Improvement
from pipelines.improve import improve


def improve_on_traffic(
    settings: Settings, policy: Policy, *, workspace: Workspace
) -> Callable[[Improvement], Improved]:
    """What `ontopic.watch.watcher.Watcher` retrains with: the improve pipeline on the active ZenML stack."""

    def run(wanted: Improvement) -> Improved:
        check_judge(wanted.card, policy)  # before a model is trained that could not be promoted
        data = source_sha256(policy.questions)
        training = settings.training
        if not training.cover:
            training = training.model_copy(update={"in_scope_share": settings.watch.in_scope_share})
        pipeline = improve.with_options(
            settings={"experiment_tracker.mlflow": {"experiment_name": policy.registered_model}},
            execution_mode=ExecutionMode.FAIL_FAST,
        )
        started = pipeline(
            record_ids_artifact=str(save_artifact(wanted.record_ids, "watched_record_ids").id),
            judged_artifact=str(save_artifact(wanted.judged, "watched_traffic").id),
            sample={
                "source": policy.questions,
                "source_sha256": data,
                "split": "evaluation",
                "n": settings.evaluation.questions,
                "in_scope_share": 0.5,
                "seed": settings.evaluation.seed,
                "more": wanted.held_out,
            },
            champion=wanted.champion,
            judge_card=wanted.card.model_dump(mode="json", exclude={"groups"}),
            model=settings.model,
            judge=settings.judge_choice,
            teacher=settings.teacher,
            training=training,
            policy=policy,
            evidence={
                "policy_sha256": hashlib.sha256(policy.model_dump_json().encode()).hexdigest(),
                "questions_sha256": data,
            },
            workspace=workspace,
            now=wanted.at.isoformat(),
            rehearse=True,
        )
        assert started is not None
        steps = Client().get_pipeline_run(started.id).steps
        output = {name: steps[name].output.load() for name in ("train_challenger", "pass_gate", "promote_challenger")}
        return Improved(
            challenger=output["train_challenger"], promoted=output["promote_challenger"], decision=output["pass_gate"]
        )

    return run
