"""Which model's answers in scope are the better ones, as an LLM judges them in pairs."""

from __future__ import annotations

from typing import Annotated

import mlflow
import pandas as pd
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, LLMJudgeSettings
from ontopic.evaluation.quality import preference
from ontopic.judges.llm import grading
from ontopic.progress import progress
from ontopic.records import Record
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(experiment_tracker=True, cache_policy=depends_on_imports(__file__))
def compare_answers(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    judge: JudgeChoice,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[list[str], "winners"]:
    """Returns for each question in scope ``a`` (the challenger), ``b`` (the champion), ``tie`` or ``unjudged``.

    Nothing where the judge is no LLM: the answers' likeness to our references stands for it.

    Args:
        champion, challenger: as ``reports.verdict_frame`` gives them, in the same order.
    """
    if not isinstance(judge.settings, LLMJudgeSettings):
        return []
    grader = grading.open_grader(
        "pairwise", judge.settings, policy=policy, prompts=judge.prompts, cache=workspace.verdicts
    )
    inside = challenger["in_scope"].eq(True)
    records = [
        Record(question=question, answer=answer, in_scope=True)
        for question, answer in challenger.loc[inside, ["question", "answer"]].itertuples(index=False)
    ]
    with progress("answers of both versions, compared", len(records), unit="questions") as advance:
        verdicts = list(
            grading.grade_pairwise(grader, records, benchmark_answers=champion.loc[inside, "answer"], advance=advance)
        )
    winners: list[str] = [verdict.winner for verdict in verdicts]
    found = preference(winners)
    mlflow.log_metrics({"preference": found.value, "preference_low": found.low} if found.n > 1 else {})
    return winners
