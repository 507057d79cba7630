"""Judged traffic becomes preferences, preferences a challenger; the gate decides whether it is promoted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.sample import Sample
from ontopic.judges.cards.card import JudgeCard
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
    judged_artifact: str,
    sample: Sample,
    champion: str,
    judge_card: JudgeCard,
    settings: Settings,
    policy: Policy,
    evidence: dict[str, str],
    workspace: Workspace,
    now: str | None = None,
) -> None:
    """Train a challenger on a champion's traffic and promote it where it passes the gate.

    Args:
        judged_artifact: id of the artifact with the traffic and its verdicts.
        now: the time of a promotion in ISO 8601, where it is not the present one.
    """
    name, judge = policy.registered_model, settings.judge_choice
    pairs = make_preferences(
        judged=Client().get_artifact_version(UUID(judged_artifact)),
        registered_model=name,
        champion=champion,
        model=settings.model,
        judge=judge,
        policy=policy,
        teacher_settings=settings.teacher,
        training=settings.training,
        workspace=workspace,
    )
    challenger = train_challenger(
        pairs=pairs,
        registered_model=name,
        champion=champion,
        model=settings.model,
        settings=settings.training,
        workspace=workspace,
    )
    evaluated: dict[str, Any] = {
        "questions": choose_questions(sample=sample),
        "registered_model": name,
        "model": settings.model,
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
