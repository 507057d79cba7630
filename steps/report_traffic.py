"""Close the windows of judged traffic, report them, and alert."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring import asked_traffic, closing
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import Monitored
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged
from ontopic.registry.unnamed import named
from ontopic.state.workspace import Workspace
from ontopic.statistics.scores import flat_metrics
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def report_traffic(
    *,
    judged: Judged,
    judge_card: JudgeCard,
    policy: Policy,
    version: str,
    window_records: int,
    alerts: list[AlertSettings],
    workspace: Workspace,
) -> Annotated[Monitored, "monitored"]:
    """Returns the scores, the windows, their alerts and the report's path."""
    now, opened = datetime.now(UTC), WindowStore(workspace.windows, policy.registered_model)
    with named(opened, workspace) as windows, Alerts(workspace.alerts, alerts, policy=policy.name) as store:
        closer = closing.Closer(policy, workspace, windows=windows, alerts=store)
        monitored = asked_traffic.close_asked(
            judged, judge_card, closer=closer, window_records=window_records, reports=workspace.reports, now=now
        )
        store.deliver(now)
    mlflow.set_tags({"model_version": version, "stage": "monitoring"})
    mlflow.log_metrics(flat_metrics(monitored.scores) | {"corrected_score": monitored.corrected.value})
    mlflow.log_artifact(str(monitored.report))
    return monitored
