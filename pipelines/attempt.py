"""What the loop and a retraining share of an attempt at a better champion: the gate's questions, evidence, outcome."""

from __future__ import annotations

from collections.abc import Sequence

from zenml.models import PipelineRunResponse

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labelled import Question, source_sha256
from ontopic.data.sample import Sample
from ontopic.watch.retraining import Improved
from pipelines.running import output


def gate_sample(settings: Settings, policy: Policy, *, more: Sequence[Question] = ()) -> Sample:
    """The questions that the gate asks: as many as the settings say, half in scope, and ``more`` besides."""
    return Sample(
        source=policy.questions,
        source_sha256=source_sha256(policy.questions),
        split="evaluation",
        n=settings.evaluation.questions,
        seed=settings.evaluation.seed,
        more=list(more),
    )


def evidence(policy: Policy, attempt: int | None = None) -> dict[str, str]:
    """What the registry keeps of an attempt besides the gate's decision: digests of policy and questions.

    Args:
        attempt: its number, where there may be several: an auditor should know how many challengers the gate has seen.
    """
    digests = {"policy_sha256": policy.sha256, "questions_sha256": source_sha256(policy.questions)}
    return digests | ({} if attempt is None else {"attempt": str(attempt)})


def improved(run: PipelineRunResponse) -> Improved:
    """What came of an attempt: a finished run of the improve pipeline."""
    return Improved(
        challenger=output(run, "train_challenger"),
        promoted=output(run, "promote_challenger"),
        decision=output(run, "pass_gate"),
    )
