"""Hold the challenger against the champion and the policy's limits."""

from __future__ import annotations

from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import step

from ontopic.config.policy import Policy
from ontopic.evaluation import gate, quality
from ontopic.judges.cards import card
from ontopic.reports import metrics as reports
from ontopic.state.workspace import Workspace
from ontopic.statistics import scores
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(card, gate, quality, reports, scores))
def pass_gate(
    champion: pd.DataFrame,
    challenger: pd.DataFrame,
    champion_quality: dict[str, Any],
    challenger_quality: dict[str, Any],
    winners: list[str],
    champion_version: str,
    challenger_version: str,
    policy: Policy,
    judge_card: card.JudgeCard,
    workspace: Workspace,
) -> Annotated[gate.Decision, "decision"]:
    """Returns the gate's decision: passed, its tests, the numbers and the report's path."""
    report = workspace.reports / (f"gate-{policy.name}-version-{challenger_version}-against-{champion_version}.html")
    decision = gate.decide(
        f"OnTopic gate: {policy.name}, version {challenger_version} against {champion_version}",
        champion,
        challenger=challenger,
        champion_quality=quality.Quality(**champion_quality),
        challenger_quality=quality.Quality(**challenger_quality),
        winners=winners,
        policy=policy,
        card=judge_card,
        report=report,
    )
    mlflow.set_tag("gate", "passed" if decision.passed else "failed")
    mlflow.log_artifact(str(report), "gate")
    mlflow.log_dict(decision.as_dict(), "gate/decision.json")
    return decision
