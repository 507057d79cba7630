"""Judged traffic becomes preferences, preferences a challenger; the gate decides whether it is promoted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeSettings, ModelSettings, TeacherSettings, TrainingSettings
from steps.choose_questions import choose_questions
from steps.compare_answers import compare_answers
from steps.evaluate_model import evaluate_model
from steps.make_preferences import make_preferences
from steps.pass_gate import pass_gate
from steps.promote_challenger import promote_challenger
from steps.train_challenger import train_challenger


@pipeline(name="improve")
def improve(
    record_ids_artifact: str,
    judged_artifact: str,
    *,
    sample: dict[str, Any],
    champion: str,
    judge_card: dict[str, Any],
    model: ModelSettings,
    judge: JudgeSettings,
    teacher: TeacherSettings | None,
    training: TrainingSettings,
    policy: Policy,
    evidence: dict[str, str],
    prompts_folder: str,
    state: str,
    tracking_uri: str,
    now: str | None = None,
    rehearse: bool = False,
) -> None:
    """Train a challenger on a champion's traffic and promote it where it passes the gate.

    Args:
        record_ids_artifact, judged_artifact: ids of artifacts: the traffic and its verdicts.
        rehearse: as ``ontopic.training.preferences.build_preferences`` has it, for a champion that was trained before.
        now: the time of a promotion in ISO 8601, where it is not the present one.
    """
    name = policy.registered_model
    record_ids = Client().get_artifact_version(UUID(record_ids_artifact))
    judged = Client().get_artifact_version(UUID(judged_artifact))
    pairs = make_preferences(
        record_ids,
        judged,
        name,
        champion,
        model,
        judge,
        policy,
        prompts_folder,
        teacher,
        training,
        state,
        tracking_uri,
        rehearse,
    )
    challenger = train_challenger(pairs, name, champion, model, training, state, tracking_uri)
    questions = choose_questions(**sample)
    before, quality_before = evaluate_model(
        questions,
        "champion",
        name,
        champion,
        model,
        judge_card,
        judge,
        policy,
        prompts_folder,
        state,
        tracking_uri,
        id="evaluate_champion",
    )
    after, quality_after = evaluate_model(
        questions,
        "challenger",
        name,
        challenger,
        model,
        judge_card,
        judge,
        policy,
        prompts_folder,
        state,
        tracking_uri,
        id="evaluate_challenger",
    )
    winners = compare_answers(before, after, judge, policy, prompts_folder, state, tracking_uri)
    decision = pass_gate(
        before,
        after,
        quality_before,
        quality_after,
        winners,
        champion,
        challenger,
        policy,
        judge_card,
        state,
        tracking_uri,
    )
    promote_challenger(decision, name, champion, challenger, judge_card, evidence, state, tracking_uri, now)
