"""Score judged traffic by window, report it, and alert."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring import loop as monitoring
from ontopic.monitoring.alerts import Alerts
from ontopic.records import Judged
from ontopic.reports import metrics as reports
from ontopic.reports.verdict_frame import verdict_frame
from ontopic.state.workspace import Workspace
from ontopic.statistics.scores import flat_metrics
from steps.caching import depends_on


@step(experiment_tracker=True, cache_policy=depends_on(monitoring, reports))
def report_traffic(
    judged: Judged,
    judge_card: dict[str, Any],
    policy: Policy,
    version: str,
    window_records: int,
    alerts: list[AlertSettings],
    workspace: Workspace,
) -> Annotated[dict[str, Any], "monitored"]:
    """Returns the scores, alerts and the report's path."""
    # One page a stretch of traffic: a version's later traffic does not overwrite the page on its first.
    frame = verdict_frame(judged.records, judged.verdicts)
    start = frame["asked_at"].min()
    report = workspace.reports / f"monitoring-{policy.name}-version-{version}-{start:%Y%m%dT%H%M%S}.html"
    monitored = monitoring.monitor(
        f"OnTopic monitoring: {policy.name}, model version {version}",
        frame,
        card=JudgeCard.model_validate(judge_card),
        window_records=window_records,
        threshold=policy.alert_threshold,
        report=report,
    )
    raised = []
    with Alerts(workspace.alerts, alerts, policy=policy.name) as store:
        now = datetime.now(UTC)
        for window in monitored.low:
            share = window.scores.guardrail_score
            text = f"guardrail score {share} is under {policy.alert_threshold:g}"
            raised.append(f"window {window.label}: {text}")
            store.event("suspected", f"version {version}, window {window.label}", at=now, text=f"{text}; {report}")
            if share.high < policy.alert_threshold:
                store.event("detected", f"version {version}, window {window.label}", at=now, text=f"{text}; {report}")
        if not monitored.low:
            store.recovered(now, f"version {version}")
        store.deliver(now)
    mlflow.set_tags({"model_version": version, "stage": "monitoring"})
    mlflow.log_metrics(flat_metrics(monitored.scores) | {"corrected_score": monitored.corrected.value})
    mlflow.log_artifact(str(report))
    return {
        "scores": monitored.scores.model_dump(mode="json"),
        "corrected": monitored.corrected.model_dump(mode="json"),
        "alerts": raised,
        "windows": len(monitored.windows),
        "report": str(report),
    }
