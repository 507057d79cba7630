"""What the loop and a retraining share of an attempt at a better champion: the gate's questions, evidence, outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from zenml.models import PipelineRunResponse

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labelled import Question
from ontopic.data.rows import source_sha256
from ontopic.data.sample import Sample
from ontopic.evaluation.evidence import Evidence
from ontopic.registry.promotions import ModelRegistry
from ontopic.registry.rollouts import rollout_of
from ontopic.watch.retraining import Improved
from pipelines.running import output


def gate_sample(settings: Settings, policy: Policy, *, more: Sequence[Question] = ()) -> Sample:
    """What each look draws from: as many questions as the settings say, half in scope, and ``more`` besides."""
    return Sample(
        source=policy.questions,
        source_sha256=source_sha256(policy.questions),
        split="evaluation",
        n=settings.evaluation.questions,
        seed=settings.evaluation.seed,
        languages=policy.languages,
        more=list(more),
    )


def evidence(policy: Policy, *, by: str | None, attempt: int | None = None, at: datetime | None = None) -> Evidence:
    """What the registry keeps of an attempt besides the gate's decision; the arguments are those of ``Evidence``.

    Args:
        by: who started the loop or `watch`.
    """
    questions = source_sha256(policy.questions)
    return Evidence(policy_sha256=policy.sha256, questions_sha256=questions, attempt=attempt, trained_by=by, at=at)


def improved(run: PipelineRunResponse, registry: ModelRegistry) -> Improved:
    """What came of an attempt: a finished run of the improve pipeline."""
    challenger = output(run, "train_challenger")
    rollout = rollout_of(registry.record.entries(registry.name))
    return Improved(
        challenger=challenger,
        promoted=output(run, "promote_challenger"),
        decision=output(run, "open_sealed"),
        rolls_out=rollout is not None and rollout.version == challenger,
    )
