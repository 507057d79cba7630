"""A served model is asked questions; its answers are judged, scored by window and reported."""

from __future__ import annotations

from typing import Any

from zenml import pipeline

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.sample import Sample
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace
from pipelines.elsewhere import brought_along
from steps.choose_questions import choose_questions
from steps.collect_traffic import collect_traffic
from steps.judge_traffic import judge_traffic
from steps.report_traffic import ReportTerms, report_traffic


@pipeline(name="monitor")
def monitor(
    *,
    sample: Sample,
    version: str,
    digest: str,
    judge_card: JudgeCard,
    labels_sha256: str,
    settings: Settings,
    policy: Policy,
    workspace: Workspace,
) -> None:
    """Collect traffic of one model version, judge it and report it.

    Args:
        digest: of the version's weights.
        labels_sha256: of the policy's labels, by which scores are corrected.
    """
    given: Any = brought_along(workspace, policy, prompts=settings.judge_prompts)
    window_records = settings.monitoring.window_records
    record_ids = collect_traffic(
        questions=choose_questions(sample=sample, workspace=given),
        registered_model=policy.registered_model,
        version=version,
        digest=digest,
        model=settings.model,
        traffic=settings.traffic,
        workspace=given,
    )
    judged = judge_traffic(
        record_ids=record_ids,
        judge_card=judge_card,
        judge=settings.judge_choice,
        policy=policy,
        window_records=window_records,
        workspace=given,
    )
    report_traffic(
        judged=judged,
        judge_card=judge_card,
        judge=settings.judge_choice,
        labels_sha256=labels_sha256,
        policy=policy,
        terms=ReportTerms(
            window_records=window_records,
            sampling_rate=settings.monitoring.sampling_rate,
            alerts=settings.alerts,
            limits=settings.monitoring.limits,
            beside=settings.judges_beside,
        ),
        workspace=given,
    )
