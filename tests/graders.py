"""Graders on the tests' chat server."""

from __future__ import annotations

import json
from typing import Any

from loopback import ROOT, ChatServer, Reply

from ontopic.config.policy import Policy
from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.endpoint import Endpoint
from ontopic.judges.llm.grading import (
    Grader,
)
from ontopic.judges.llm.templates import Grading, load_template
from ontopic.records import Record

PROMPTS = ROOT / "configs" / "judge_prompts"


SHIPPED: dict[str, Grading] = {
    "naive": "single",
    "rubric": "single",
    "pairwise": "pairwise",
    "reference": "reference",
}


RECORD = Record(question="Can I freeze my card?", answer="Yes, in the app.")


PASS = json.dumps({"explanation": "Because.", "in_scope": True, "declined": False, "verdict": "pass"})


def grader_of(server: ChatServer, policy: Policy, name: str = "rubric", concurrency: int = 4, **parts: Any) -> Grader:
    settings = EndpointSettings(model="m", base_url=server.url, concurrency=concurrency, max_retries=1)
    return Grader(Endpoint(settings), load_template(PROMPTS / f"{name}.txt", SHIPPED[name]), policy, **parts)


def says(server: ChatServer, text: str, **parts: Any) -> None:
    server.reply = lambda request: Reply(text, **parts)
