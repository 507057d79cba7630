"""What the registry keeps of a decision, as tags of the challenger's version, for an auditor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.statistics.scores import SHARES


def gate_tags(
    decision: Decision, card: JudgeCard, *, champion: str, weights_sha256: str, hashes: Mapping[str, str]
) -> dict[str, str]:
    """Tags by name, each beginning with ``ontopic.gate``; the numbers and tests as JSON.

    Args:
        card: of the judge that the decision goes by.
        champion: the version that the challenger was held against.
        weights_sha256: of the challenger's weights.
        hashes: of the inputs (policy, questions) by name.

    Raises:
        OSError: the decision's page can't be read.
    """
    said = decision.model_dump(mode="json")
    return {
        "ontopic.gate": "passed" if decision.passed else "failed",
        "ontopic.gate.tests": json.dumps(said["tests"]),
        "ontopic.gate.champion": champion,
        "ontopic.gate.judge": card.judge_id,
        "ontopic.gate.report_sha256": hashlib.sha256(decision.report.read_bytes()).hexdigest(),
        "ontopic.gate.weights_sha256": weights_sha256,
        **{f"ontopic.gate.{name}": value for name, value in hashes.items()},
        **{f"ontopic.gate.{name}": json.dumps(said["challenger"][name]) for name in SHARES},
        "ontopic.gate.improvement": json.dumps(said["comparison"]),
    }
