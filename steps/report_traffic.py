"""Score judged traffic by window, report it, and alert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import mlflow
import pandas as pd
from zenml import step

from ontopic import monitoring, reports
from ontopic.judges.card import card_of
from ontopic.policy import Policy
from ontopic.scores import flat_metrics
from ontopic.workspace import Workspace
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(monitoring, reports))
def report_traffic(
    judged: pd.DataFrame,
    judge_card: dict[str, Any],
    policy: Policy,
    version: str,
    window_records: int,
    state: str,
    tracking_uri: str,
) -> Annotated[dict[str, Any], "monitored"]:
    """Returns the scores, alerts and the report's path."""
    workspace = Workspace(Path(state))
    # One page a stretch of traffic: a version's later traffic does not overwrite the page on its first.
    start = judged["asked_at"].min()
    report = workspace.reports / f"monitoring-{policy.name}-version-{version}-{start:%Y%m%dT%H%M%S}.html"
    monitored = monitoring.monitor(
        f"OnTopic monitoring: {policy.name}, model version {version}",
        judged,
        card_of(judge_card),
        window_records,
        policy.alert_threshold,
        report,
        workspace.root / "alerts.jsonl",
    )
    mlflow.set_tags({"model_version": version, "stage": "monitoring"})
    mlflow.log_metrics(flat_metrics(monitored.scores) | {"corrected_score": monitored.corrected.value})
    mlflow.log_artifact(str(report))
    return {
        "scores": monitoring.scores_as_dict(monitored.scores),
        "corrected": monitored.corrected.as_dict(),
        "alerts": monitored.alerts,
        "windows": len(monitored.windows),
        "report": str(report),
    }
