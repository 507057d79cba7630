"""Judged traffic becomes preferences, preferences a challenger; the gate decides whether it is promoted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.data.labels import labels_sha256
from ontopic.data.sample import Sample
from ontopic.evaluation.evidence import Evidence
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace
from ontopic.training.next_preferences import PreferenceTerms, sources_sha256
from pipelines.elsewhere import brought_along
from steps.compare_answers import compare_answers
from steps.evaluate_model import evaluate_model
from steps.make_preferences import make_preferences
from steps.open_look import open_look
from steps.open_sealed import open_sealed
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
        sample: what the gate's questions are drawn from.
        champion: its version.
        evidence: for an auditor, besides the gate's decision.
    """
    given: Any = brought_along(workspace, policy, prompts=settings.judge_prompts, training=settings.training)
    judging: dict[str, Any] = {"judge": settings.judge_choice, "policy": policy, "workspace": given}
    terms = _terms(settings, policy, sample=sample, workspace=workspace)
    challenger = _challenger(champion, judged_artifact=judged_artifact, terms=terms, settings=settings, **judging)
    asking: dict[str, Any] = {"model": settings.model, "judge_card": judge_card, **judging}
    look, questions, known = open_look(
        champion=champion,
        challenger=challenger,
        sample=sample,
        model=settings.model,
        evidence=evidence.with_settings(settings),
        **judging,
    )
    asking["questions"] = questions
    before = evaluate_model(role="champion", version=champion, id="evaluate_champion", **asking)
    after = evaluate_model(role="challenger", version=challenger, id="evaluate_challenger", **asking)
    winners = compare_answers(champion=before, challenger=after, **judging)
    decision = pass_gate(
        champion=before,
        challenger=after,
        winners=winners,
        look=look,
        evidence=known,
        policy=policy,
        terms=GateTerms(judge_card=judge_card, labels_sha256=labels_sha256(policy, workspace)),
        workspace=given,
    )
    confirmed = open_sealed(
        decision=decision, champion=before, challenger=after, look=look, model=settings.model, **judging
    )
    promote_challenger(
        decision=confirmed,
        champion=before,
        challenger=after,
        judge_card=judge_card,
        evidence=known,
        approval=settings.promotion,
        policy=policy,
        workspace=given,
    )


def _terms(settings: Settings, policy: Policy, *, sample: Sample, workspace: Workspace) -> PreferenceTerms:
    return PreferenceTerms(
        training=settings.training,
        teacher=settings.teacher,
        held_out=sample.more,
        sources_sha256=sources_sha256(settings.training, policy, workspace=workspace),
    )


def _challenger(
    champion: str, *, judged_artifact: str, terms: PreferenceTerms, settings: Settings, **judging: Any
) -> Any:
    """The steps that make preferences of a champion's traffic and a challenger of those."""
    pairs = make_preferences(
        judged=Client().get_artifact_version(UUID(judged_artifact)),
        champion=champion,
        model=settings.model,
        terms=terms,
        **judging,
    )
    return train_challenger(
        pairs=pairs,
        champion=champion,
        model=settings.model,
        settings=settings.training,
        policy=judging["policy"],
        workspace=judging["workspace"],
    )
