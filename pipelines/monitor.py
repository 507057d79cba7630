"""A served model is asked questions; its answers are judged, scored by window and reported."""

from __future__ import annotations

from typing import Any

from zenml import pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings, JudgeChoice, ModelSettings, TrafficSettings
from ontopic.data.sample import Sample
from ontopic.state.workspace import Workspace
from steps.choose_questions import choose_questions
from steps.collect_traffic import collect_traffic
from steps.judge_traffic import judge_traffic
from steps.report_traffic import report_traffic


@pipeline(name="monitor")
def monitor(
    *,
    sample: Sample,
    version: str,
    digest: str,
    judge_card: dict[str, Any],
    model: ModelSettings,
    judge: JudgeChoice,
    policy: Policy,
    traffic: TrafficSettings,
    window_records: int,
    alerts: list[AlertSettings],
    workspace: Workspace,
) -> None:
    """Collect traffic of one model version, judge it and report it."""
    questions = choose_questions(sample=sample)
    record_ids = collect_traffic(
        questions=questions,
        registered_model=policy.registered_model,
        version=version,
        digest=digest,
        model=model,
        traffic=traffic,
        workspace=workspace,
    )
    judged = judge_traffic(
        record_ids=record_ids, judge_card=judge_card, judge=judge, policy=policy, workspace=workspace
    )
    report_traffic(
        judged=judged,
        judge_card=judge_card,
        policy=policy,
        version=version,
        window_records=window_records,
        alerts=alerts,
        workspace=workspace,
    )
