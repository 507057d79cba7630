"""Close the windows of judged traffic, report them, and alert."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict
from zenml import step

from ontopic.config.alert_settings import AlertSettings, MonitoringLimits
from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, SideJudgeSettings
from ontopic.data.by_language import by_language, language_metrics
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring.asked_traffic import Monitored
from ontopic.records import Judged
from ontopic.state.workspace import Workspace
from ontopic.statistics.scores import flat_metrics
from steps.caching import depends_on_imports
from steps.pages import PAGES

if TYPE_CHECKING:
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore


class ReportTerms(BaseModel):
    """What a report goes by besides the policy.

    Attributes:
        window_records: as ``MonitoringSettings`` has it, and so ``sampling_rate``.
        limits: that windows are held against besides the policy's.
        beside: the judges that measure the same traffic, and decide nothing.
    """

    model_config = ConfigDict(frozen=True)
    window_records: int
    sampling_rate: float
    alerts: list[AlertSettings]
    limits: MonitoringLimits
    beside: list[SideJudgeSettings]


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
    output_materializers=PAGES,
)
def report_traffic(
    *,
    judged: Judged,
    judge_card: JudgeCard,
    judge: JudgeChoice,
    labels_sha256: str,
    policy: Policy,
    terms: ReportTerms,
    workspace: Workspace,
) -> Annotated[Monitored, "monitored"]:
    """Returns the scores, the windows, their alerts and the report's path.

    Args:
        judge_card: of the judge, on templates.
        judge: gives its verdicts on labelled traffic, where there is some.
        labels_sha256: of the policy's labels; a part of the cache key.
        terms: what the report goes by besides the policy.
    """
    from ontopic.judges.cards.traffic_card import labelled_traffic
    from ontopic.judges.opening import open_judge
    from ontopic.monitoring import asked_traffic, closing, judges_beside
    from ontopic.monitoring.alerts import Alerts
    from ontopic.monitoring.windows import WindowStore
    from ontopic.registry.unnamed import named
    from ontopic.traffic.store import TrafficStore

    labels = labelled_traffic(policy, workspace, judge=lambda: open_judge(judge, policy, workspace=workspace))
    now, opened = datetime.now(UTC), WindowStore(workspace.windows, policy.registered_model)
    with (
        named(opened, workspace) as windows,
        TrafficStore(workspace.traffic, policy.registered_model) as traffic,
        Alerts(workspace.alerts, terms.alerts, policy=policy.name) as store,
    ):
        closer = closing.Closer(policy, workspace, windows=windows, alerts=store, traffic=traffic, limits=terms.limits)
        beside = judges_beside.JudgesBeside(
            terms.beside,
            policy,
            prompts=judge.prompts,
            workspace=workspace,
            windows=windows,
            sampling_rate=terms.sampling_rate,
        )
        monitored = asked_traffic.close_asked(
            judged,
            judge_card,
            closer=closer,
            window_records=terms.window_records,
            reports=workspace.reports,
            now=now,
            labels=labels,
            beside=beside,
        )
        store.deliver(now)
        _log_sample(windows, traffic, workspace=workspace)
    _track(monitored, judged)
    return monitored


def _log_sample(windows: WindowStore, traffic: TrafficStore, *, workspace: Workspace) -> None:
    import mlflow

    from ontopic.monitoring.logged_traffic import log_windows

    if (run := mlflow.active_run()) is not None:
        log_windows(windows, traffic, experiment=run.info.experiment_id, uri=workspace.mlflow_uri, tell=print)


def _track(monitored: Monitored, judged: Judged) -> None:
    import mlflow
    import pandas as pd

    from ontopic.monitoring.conversations import conversations_of
    from ontopic.monitoring.thumbs import liked_metrics
    from ontopic.registry.tracking import log_data_set

    versions = ", ".join(sorted({record.model_version for record in judged.records}))
    mlflow.set_tags({"model_version": versions, "stage": "monitoring"})
    ids = json.dumps([record.id for record in judged.records])
    about = pd.DataFrame(
        [verdict.model_dump(include={"outcome", "in_scope", "declined"}) for verdict in judged.verdicts]
    )
    sha256 = hashlib.sha256(ids.encode()).hexdigest()
    log_data_set(about, f"traffic of version {versions}", context="monitoring", sha256=sha256)
    languages = by_language([record.question for record in judged.records], judged.verdicts)
    metrics = flat_metrics(monitored.scores) | language_metrics(languages)
    if monitored.is_corrected:
        metrics["corrected_score"] = monitored.score.value
    if conversations := conversations_of(judged):
        metrics |= conversations.metrics()
    metrics |= liked_metrics(monitored.liked) if monitored.liked else {}
    for side in monitored.beside:
        metrics |= side.metrics()
    mlflow.log_metrics(metrics)
    mlflow.log_artifact(str(monitored.report))
