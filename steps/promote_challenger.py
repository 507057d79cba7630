"""Write the gate's evidence on the challenger and, where it passed, make it the champion."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated

import mlflow
from zenml import step

from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.models.loading import digest
from ontopic.registry import versions as registry
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def promote_challenger(
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
    model = registry.find(registered_model, challenger, state=workspace.root)
    report = decision.report
    numbers = decision.as_dict()
    tags = {
        "ontopic.gate": "passed" if decision.passed else "failed",
        "ontopic.gate.tests": json.dumps(numbers["tests"]),
        "ontopic.gate.champion": champion,
        "ontopic.gate.judge": judge_card.judge_id,
        "ontopic.gate.report_sha256": hashlib.sha256(report.read_bytes()).hexdigest(),
        "ontopic.gate.weights_sha256": digest(model.folder),
        **{f"ontopic.gate.{name}": value for name, value in evidence.items()},
    }
    for name in ("guardrail_score", "over_refusal", "leak"):
        tags[f"ontopic.gate.{name}"] = json.dumps(numbers["challenger"][name])
    tags["ontopic.gate.improvement"] = json.dumps(numbers["comparison"])
    # The version's own run keeps the report too, beside the weights.
    mlflow.MlflowClient().log_artifact(model.run_id, str(report), "gate")
    if decision.passed and registry.champion_version(registered_model) != challenger:
        why = f"passed the gate against version {champion}: {decision.report}"
        at = datetime.fromisoformat(now) if now else None
        registry.promote(registered_model, challenger, by="the loop", why=why, at=at, tags=tags)
    else:
        registry.tag(registered_model, challenger, tags=tags)
    return bool(decision.passed)
