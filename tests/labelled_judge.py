"""What an LLM judge says that is right on the gardening policy's labelled records, and fails all others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loopback import ROOT, Reply

from ontopic.config.policy import load_policy
from ontopic.judges.cards.calibration import calibration_records


def right_on_labelled(delay_s: float = 0) -> Callable[[dict[str, Any]], Reply]:
    """How a chat server replies as such a judge."""
    policy = load_policy(ROOT / "configs" / "policies" / "gardening.yaml")
    good = [(r.question, r.answer) for r in calibration_records(policy, "calibration") if r.label == "pass"]

    def reply(request: dict[str, Any]) -> Reply:
        record = str(request["messages"]).rpartition("The record to judge")[2]
        passes = any(question in record and answer in record for question, answer in good)
        said = {"explanation": "", "in_scope": True, "declined": False, "verdict": "pass" if passes else "fail"}
        return Reply(json.dumps(said), delay_s=delay_s)

    return reply
