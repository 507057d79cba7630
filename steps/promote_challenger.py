"""Write the gate's evidence on the challenger and, where it passed, make it the champion."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import mlflow
from zenml import step

from ontopic.registry.promotions import open_registry
from ontopic.registry.versions import find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def promote_challenger(
    decision: dict[str, Any],
    registered_model: str,
    champion: str,
    challenger: str,
    judge_card: dict[str, Any],
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
    report = Path(decision["report"])
    tags = {
        "ontopic.gate": "passed" if decision["passed"] else "failed",
        "ontopic.gate.tests": json.dumps(decision["tests"]),
        "ontopic.gate.champion": champion,
        "ontopic.gate.judge": judge_card["judge_id"],
        "ontopic.gate.report_sha256": hashlib.sha256(report.read_bytes()).hexdigest(),
        "ontopic.gate.weights_sha256": folder_sha256(model.folder),
        **{f"ontopic.gate.{name}": value for name, value in evidence.items()},
    }
    for name in ("guardrail_score", "over_refusal", "leak"):
        tags[f"ontopic.gate.{name}"] = json.dumps(decision["challenger"][name])
    tags["ontopic.gate.improvement"] = json.dumps(decision["comparison"])
    # The version's own run keeps the report too, beside the weights.
    mlflow.MlflowClient().log_artifact(model.run_id, str(report), "gate")
    registry = open_registry(workspace, registered_model)
    if decision["passed"] and registry.champion() != challenger:
        why = f"passed the gate against version {champion}: {decision['report']}"
        at = datetime.fromisoformat(now) if now else None
        registry.promote(challenger, by="the loop", why=why, at=at, tags=tags)
    else:
        registry.tag(challenger, tags)
    return bool(decision["passed"])
