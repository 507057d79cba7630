"""Ask both models the sealed questions, once a challenger has passed everything else."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.sealed import sealed_questions
from ontopic.evaluation.gate import Decision, Evaluated
from ontopic.evaluation.looks import Look
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports
from steps.pages import PAGES


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
    output_materializers=PAGES,
)
def open_sealed(
    *,
    decision: Decision,
    champion: Evaluated,
    challenger: Evaluated,
    look: Look,
    model: ModelSettings,
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[Decision, "decision"]:
    """Returns the decision, with the test on the sealed questions where they were opened.

    They stay closed where the challenger was refused, or where the evaluation split is too small to seal some.
    """
    import mlflow

    from ontopic.evaluation import gate_page, looks, sealed
    from ontopic.evaluation.answers import evaluate_version
    from ontopic.judges.guard.card import enforced_guard
    from ontopic.judges.opening import open_judge

    questions = sealed_questions(policy.questions, policy.languages) if decision.passed else []
    if not questions:
        return decision
    versions = [each.evaluation.model_version for each in (champion, challenger)]
    opening = looks.open_sealed(
        look,
        champion=versions[0],
        challenger=versions[1],
        registered_model=policy.registered_model,
        workspace=workspace,
    )
    judging = open_judge(judge, policy, workspace=workspace)
    guard = enforced_guard(judge, policy, workspace=workspace)
    before, after = (
        evaluate_version(
            version,
            questions,
            registered_model=policy.registered_model,
            judge=judging,
            settings=model,
            workspace=workspace,
            guard=guard,
        )
        for version in versions
    )
    confirmed = sealed.with_sealed(decision, champion=before.verdicts, challenger=after.verdicts, opening=opening)
    title = f"OnTopic gate: {policy.name}, version {versions[1]} against {versions[0]}"
    gate_page.write_gate_page(title, confirmed, champion=champion, challenger=challenger)
    mlflow.set_tag("gate", "passed" if confirmed.passed else "failed")
    for page in (confirmed.report, confirmed.evidently):
        mlflow.log_artifact(str(page), "gate")
    mlflow.log_dict(confirmed.model_dump(mode="json"), "gate/decision.json")
    return confirmed
