"""Close the windows of judged traffic, report them, and alert."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings, JudgeChoice
from ontopic.data.by_language import by_language, language_metrics
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.traffic_card import labelled_traffic
from ontopic.judges.opening import open_judge
from ontopic.monitoring import asked_traffic, closing
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import Monitored
from ontopic.monitoring.conversations import conversations_of
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
    judge: JudgeChoice,
    labels_sha256: str,
    policy: Policy,
    window_records: int,
    alerts: list[AlertSettings],
    workspace: Workspace,
) -> Annotated[Monitored, "monitored"]:
    """Returns the scores, the windows, their alerts and the report's path.

    Args:
        judge_card: of the judge, on templates.
        judge: gives its verdicts on labelled traffic, where there is some.
        labels_sha256: of the policy's labels; a part of the cache key.
    """
    labels = labelled_traffic(policy, workspace, judge=lambda: open_judge(judge, policy, workspace=workspace))
    now, opened = datetime.now(UTC), WindowStore(workspace.windows, policy.registered_model)
    with named(opened, workspace) as windows, Alerts(workspace.alerts, alerts, policy=policy.name) as store:
        closer = closing.Closer(policy, workspace, windows=windows, alerts=store)
        monitored = asked_traffic.close_asked(
            judged,
            judge_card,
            closer=closer,
            window_records=window_records,
            reports=workspace.reports,
            now=now,
            labels=labels,
        )
        store.deliver(now)
    mlflow.set_tags(
        {"model_version": ", ".join(sorted({record.model_version for record in judged.records})), "stage": "monitoring"}
    )
    languages = by_language([record.question for record in judged.records], judged.verdicts)
    metrics = flat_metrics(monitored.scores) | language_metrics(languages)
    if monitored.is_corrected:
        metrics["corrected_score"] = monitored.score.value
    if conversations := conversations_of(judged):
        metrics |= conversations.metrics()
    mlflow.log_metrics(metrics)
    mlflow.log_artifact(str(monitored.report))
    return monitored
