"""A served model is asked questions; its answers are judged, scored by window and reported."""

from __future__ import annotations

from typing import Any

from zenml import pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertSettings, JudgeSettings, ModelSettings, TrafficSettings
from steps.choose_questions import choose_questions
from steps.collect_traffic import collect_traffic
from steps.judge_traffic import judge_traffic
from steps.report_traffic import report_traffic


@pipeline(name="monitor")
def monitor(
    sample: dict[str, Any],
    version: str,
    *,
    digest: str,
    judge_card: dict[str, Any],
    model: ModelSettings,
    judge: JudgeSettings,
    policy: Policy,
    traffic: TrafficSettings,
    window_records: int,
    alerts: list[AlertSettings],
    prompts_folder: str,
    state: str,
    tracking_uri: str,
) -> None:
    """Collect traffic of one model version, judge it and report it."""
    questions = choose_questions(**sample)
    record_ids = collect_traffic(
        questions, policy.registered_model, version, digest, model, traffic, state, tracking_uri
    )
    judged = judge_traffic(record_ids, judge_card, judge, policy, prompts_folder, state)
    report_traffic(judged, judge_card, policy, version, window_records, alerts, state, tracking_uri)
