"""Write the gate's evidence on the challenger; where it passed, make it the champion or have it wait for approval."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.settings import PromotionSettings
from ontopic.evaluation.evidence import Evidence, gate_tags
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.registry.versions import find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def promote_challenger(
    *,
    decision: Decision,
    champion: str,
    challenger: str,
    judge_card: JudgeCard,
    evidence: Evidence,
    approval: PromotionSettings,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[bool, "promoted"]:
    """Returns whether the challenger is the champion now."""
    name = policy.registered_model
    model = find(name, challenger, workspace=workspace)
    weights = folder_sha256(model.folder)
    tags = gate_tags(decision, judge_card, champion=champion, weights_sha256=weights, evidence=evidence)
    registry = open_registry(workspace, name)
    # The version's own run keeps the report too, beside the weights.
    mlflow.MlflowClient().log_artifact(model.run_id, str(decision.report), "gate")
    gate = PromotionRecord(workspace.promotion_record).add(
        "gate",
        name,
        version=challenger,
        by="the gate",
        why="all tests passed" if decision.passed else "a test failed",
        facts={**tags, "weights_sha256": weights, "trained_by": evidence.trained_by},
    )
    is_new = decision.passed and registry.champion() != challenger
    if is_new and approval.approval == "automatic":
        why = f"passed the gate against version {champion}: {decision.report}"
        registry.promote(challenger, by="the loop", why=why, at=evidence.at, tags=tags)
    else:
        registry.tag(challenger, tags)
        if is_new:
            SignOff(approval, policy, workspace=workspace).ask(
                challenger,
                gate=gate,
                champion=champion,
                weights_sha256=weights,
                trained_by=evidence.trained_by or "",
            )
    return decision.passed and registry.champion() == challenger
