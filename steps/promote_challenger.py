"""Write the gate's evidence on the challenger and, where it passed, make it the champion."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import mlflow
from zenml import step

from ontopic.evaluation.evidence import gate_tags
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
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
    evidence: dict[str, str],
    workspace: Workspace,
    now: str | None = None,
) -> Annotated[bool, "promoted"]:
    """Returns whether the challenger is the champion now.

    Args:
        evidence: hashes of the inputs (policy, questions) by name.
        now: the time of the promotion in ISO 8601, where it is not the present one.
    """
    model = find(registered_model, challenger, workspace=workspace)
    weights = folder_sha256(model.folder)
    tags = gate_tags(decision, judge_card, champion=champion, weights_sha256=weights, hashes=evidence)
    registry = open_registry(workspace, registered_model)
    # The version's own run keeps the report too, beside the weights.
    mlflow.MlflowClient().log_artifact(model.run_id, str(decision.report), "gate")
    if decision.passed and registry.champion() != challenger:
        why = f"passed the gate against version {champion}: {decision.report}"
        at = datetime.fromisoformat(now) if now else None
        registry.promote(challenger, by="the loop", why=why, at=at, tags=tags)
    else:
        registry.tag(challenger, tags)
    return decision.passed
