"""Which model's answers in scope are the better ones, as an LLM judges them in pairs."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.evaluation.gate import Evaluated
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(experiment_tracker=True, cache_policy=depends_on_imports(__file__))
def compare_answers(
    *, champion: Evaluated, challenger: Evaluated, judge: JudgeChoice, policy: Policy, workspace: Workspace
) -> Annotated[list[str], "winners"]:
    """Returns for each question in scope ``a`` (the challenger), ``b`` (the champion), ``tie`` or ``unjudged``.

    Empty where the judge is not an LLM.
    """
    import mlflow

    from ontopic.evaluation import preference

    winners = preference.winners_in_pairs(
        champion.evaluation, challenger.evaluation, judge=judge, policy=policy, workspace=workspace
    )
    found = preference.preferred(winners)
    mlflow.log_metrics({"preference": found.value, "preference_low": found.low} if found.n > 1 else {})
    return winners
