"""Judged traffic becomes preferences, preferences a challenger; the gate decides whether it is promoted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labels import labels_file
from ontopic.data.rows import source_sha256
from ontopic.data.sample import Sample
from ontopic.evaluation.evidence import Evidence
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace
from steps.choose_questions import choose_questions
from steps.compare_answers import compare_answers
from steps.evaluate_model import evaluate_model
from steps.make_preferences import make_preferences
from steps.pass_gate import GateTerms, pass_gate
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
    evidence: Evidence,
    workspace: Workspace,
) -> None:
    """Train a challenger on a champion's traffic and promote it where it passes the gate, or have it wait for approval.

    Args:
        judged_artifact: id of the artifact ``Judged``: the traffic and its verdicts.
        sample: of the gate's questions.
        champion: its version.
        evidence: for an auditor, besides the gate's decision.
    """
    model, name = settings.model, policy.registered_model
    judging: dict[str, Any] = {"judge": settings.judge_choice, "policy": policy, "workspace": workspace}
    pairs = make_preferences(
        judged=Client().get_artifact_version(UUID(judged_artifact)),
        champion=champion,
        model=model,
        teacher_settings=settings.teacher,
        training=settings.training,
        **judging,
    )
    challenger = train_challenger(
        pairs=pairs,
        registered_model=name,
        champion=champion,
        model=model,
        settings=settings.training,
        workspace=workspace,
    )
    asked = {"questions": choose_questions(sample=sample), "model": model, "judge_card": judge_card, **judging}
    before, quality_before = evaluate_model(role="champion", version=champion, id="evaluate_champion", **asked)
    after, quality_after = evaluate_model(role="challenger", version=challenger, id="evaluate_challenger", **asked)
    winners = compare_answers(champion=before, challenger=after, **judging)
    decision = pass_gate(
        champion=before,
        challenger=after,
        champion_quality=quality_before,
        challenger_quality=quality_after,
        winners=winners,
        policy=policy,
        terms=GateTerms(judge_card=judge_card, labels_sha256=source_sha256(str(labels_file(policy, workspace)))),
        workspace=workspace,
    )
    promote_challenger(
        decision=decision,
        champion=before,
        challenger=after,
        judge_card=judge_card,
        evidence=evidence.with_settings(settings),
        approval=settings.promotion,
        policy=policy,
        workspace=workspace,
    )
