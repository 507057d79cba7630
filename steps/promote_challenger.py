"""Write the gate's evidence on the challenger and, where it passed, make it the champion."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.evaluation.evidence import Evidence, gate_tags
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import open_registry
from ontopic.registry.versions import find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def promote_challenger(
    *,
    decision: Decision,
    registered_model: str,
    champion: str,
    challenger: str,
    judge_card: JudgeCard,
    evidence: Evidence,
    workspace: Workspace,
) -> Annotated[bool, "promoted"]:
    """Returns whether the challenger is the champion now."""
    model = find(registered_model, challenger, workspace=workspace)
    weights = folder_sha256(model.folder)
    tags = gate_tags(decision, judge_card, champion=champion, weights_sha256=weights, evidence=evidence)
    registry = open_registry(workspace, registered_model)
    # The version's own run keeps the report too, beside the weights.
    mlflow.MlflowClient().log_artifact(model.run_id, str(decision.report), "gate")
    record = PromotionRecord(workspace.promotion_record)
    # A decision that comes from the cache again is of the same look, and no new one.
    said = (challenger, evidence.sample_sha256, evidence.policy_sha256)
    known = [
        (e.version, e.facts.get("sample_sha256"), e.facts.get("policy_sha256")) for e in record.gates(registered_model)
    ]
    if said not in known:
        why = "all tests passed" if decision.passed else "a test failed"
        facts = {**evidence.model_dump(mode="json"), **tags}
        record.add("gate", registered_model, version=challenger, by="the gate", why=why, facts=facts, at=evidence.at)
    if decision.passed and registry.champion() != challenger:
        why = f"passed the gate against version {champion}: {decision.report}"
        registry.promote(challenger, by="the loop", why=why, at=evidence.at, tags=tags)
    else:
        registry.tag(challenger, tags)
    return decision.passed
