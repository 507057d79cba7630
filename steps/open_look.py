"""Take a look at held-out questions: count it in the promotion record, and draw its questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.labelled import Question, Questions
from ontopic.data.sample import Sample
from ontopic.evaluation import looks
from ontopic.evaluation.answers import Evaluation, evaluate_version
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.looks import Look
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def open_look(
    *,
    champion: str,
    challenger: str,
    sample: Sample,
    model: ModelSettings,
    judge: JudgeChoice,
    policy: Policy,
    evidence: Evidence,
    workspace: Workspace,
) -> tuple[Annotated[Look, "look"], Annotated[Questions, "questions"], Annotated[Evidence, "evidence"]]:
    """Returns the look, its questions, shuffled, and the evidence with the look in it.

    Not cached, as the record says which look it is. The same champion, challenger, policy, judge and sample give the
    same look, so that what follows comes from the cache, and a gate that was killed goes on. Where a rehearsal failed,
    its questions are handed on, and the gate refuses on them.
    """
    import mlflow

    from ontopic.judges.guard.card import enforced_guard
    from ontopic.judges.opening import open_judge

    judging = open_judge(judge, policy, workspace=workspace)
    guard = enforced_guard(judge, policy, workspace=workspace)

    def ask(version: str, questions: Sequence[Question]) -> Evaluation:
        name = policy.registered_model
        return evaluate_version(
            version, questions, registered_model=name, judge=judging, settings=model, workspace=workspace, guard=guard
        )

    look, questions = looks.open_look(
        sample,
        champion=champion,
        challenger=challenger,
        judge_id=judging.id,
        policy=policy,
        ask=ask,
        workspace=workspace,
    )
    if look.rehearsal is not None:
        mlflow.set_tag("rehearsal", "passed" if look.taken else "failed")
    if look.taken:
        mlflow.log_params({"look": look.of_policy, "look_alpha": look.alpha, "look_seed": look.seed})
    return look, Questions(questions), looks.with_look(evidence, look, questions=questions)
