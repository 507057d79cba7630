"""Judged traffic becomes preferences, preferences a challenger; the gate decides whether it is promoted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, ModelSettings, TeacherSettings, TrainingSettings
from ontopic.state.workspace import Workspace
from steps.choose_questions import choose_questions
from steps.compare_answers import compare_answers
from steps.evaluate_model import evaluate_model
from steps.make_preferences import make_preferences
from steps.pass_gate import pass_gate
from steps.promote_challenger import promote_challenger
from steps.train_challenger import train_challenger


@pipeline(name="improve")
def improve(
    *,
    record_ids_artifact: str,
    judged_artifact: str,
    sample: dict[str, Any],
    champion: str,
    judge_card: dict[str, Any],
    model: ModelSettings,
    judge: JudgeChoice,
    teacher: TeacherSettings | None,
    training: TrainingSettings,
    policy: Policy,
    evidence: dict[str, str],
    workspace: Workspace,
    now: str | None = None,
    rehearse: bool = False,
) -> None:
    """Train a challenger on a champion's traffic and promote it where it passes the gate.

    Args:
        record_ids_artifact, judged_artifact: ids of artifacts: the traffic and its verdicts.
        rehearse: as ``build_preferences`` has it, for a champion that was trained before.
        now: the time of a promotion in ISO 8601, where it is not the present one.
    """
    name = policy.registered_model
    pairs = make_preferences(
        record_ids=Client().get_artifact_version(UUID(record_ids_artifact)),
        judged=Client().get_artifact_version(UUID(judged_artifact)),
        registered_model=name,
        champion=champion,
        model=model,
        judge=judge,
        policy=policy,
        teacher_settings=teacher,
        training=training,
        workspace=workspace,
        rehearse=rehearse,
    )
    challenger = train_challenger(
        pairs=pairs,
        registered_model=name,
        champion=champion,
        model=model,
        settings=training,
        workspace=workspace,
    )
    evaluated: dict[str, Any] = {
        "questions": choose_questions(**sample),
        "registered_model": name,
        "model": model,
        "judge_card": judge_card,
        "judge": judge,
        "policy": policy,
        "workspace": workspace,
    }
    before, quality_before = evaluate_model(role="champion", version=champion, id="evaluate_champion", **evaluated)
    after, quality_after = evaluate_model(role="challenger", version=challenger, id="evaluate_challenger", **evaluated)
    winners = compare_answers(champion=before, challenger=after, judge=judge, policy=policy, workspace=workspace)
    decision = pass_gate(
        champion=before,
        challenger=after,
        champion_quality=quality_before,
        challenger_quality=quality_after,
        winners=winners,
        champion_version=champion,
        challenger_version=challenger,
        policy=policy,
        judge_card=judge_card,
        workspace=workspace,
    )
    promote_challenger(
        decision=decision,
        registered_model=name,
        champion=champion,
        challenger=challenger,
        judge_card=judge_card,
        evidence=evidence,
        workspace=workspace,
        now=now,
    )
