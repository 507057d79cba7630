"""What the registry keeps of a decision: tags that an auditor finds under the names they always had."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from evaluations import evaluated, gate_card, judged

from ontopic.config.policy import Policy
from ontopic.evaluation.evidence import Evidence, gate_tags
from ontopic.evaluation.gate import decide


def test_the_tags_hold_the_decision_the_judge_and_every_hash(banking: Policy, tmp_path: Path) -> None:
    card = gate_card(banking)
    report = tmp_path / "gate.html"
    report.write_text("the page")
    sides = evaluated(judged(200, 120)), evaluated(judged(200, 6))
    decision = decide(*sides, winners=[], policy=banking, card=card, report=report)
    evidence = Evidence(policy_sha256="p", questions_sha256="q", attempt=2)
    tags = gate_tags(decision, card, champion="1", weights_sha256="w", evidence=evidence)
    rates = {name: tags.pop(f"ontopic.gate.{name}") for name in ("guardrail_score", "over_refusal", "leak")}
    improvement = json.loads(tags.pop("ontopic.gate.improvement"))
    assert tags == {
        "ontopic.gate": "passed",
        "ontopic.gate.champion": "1",
        "ontopic.gate.judge": "judge-1",
        "ontopic.gate.report_sha256": hashlib.sha256(b"the page").hexdigest(),
        "ontopic.gate.weights_sha256": "w",
        "ontopic.gate.tests": "8 of 8 passed",
        "ontopic.data.policy_sha256": "p",
        "ontopic.data.questions_sha256": "q",
        "ontopic.training.attempt": "2",
    }
    assert {tuple(json.loads(text)) for text in rates.values()} == {("value", "low", "high", "n")}
    assert json.loads(rates["guardrail_score"])["value"] == 0.97
    assert all(len(text) < 80 for text in rates.values()), "MLflow's page has a column for them"
    assert list(improvement) == ["difference", "low", "high", "p_value", "wins", "losses", "n"]
    assert improvement["p_value"] > 0  # however small it is


def test_a_refusal_names_what_failed(banking: Policy, tmp_path: Path) -> None:
    report = tmp_path / "gate.html"
    report.write_text("the page")
    sides = evaluated(judged(200, 6)), evaluated(judged(200, 120))
    decision = decide(*sides, winners=[], policy=banking, card=gate_card(banking), report=report)
    evidence = Evidence(policy_sha256="p", questions_sha256="q")
    tags = gate_tags(decision, gate_card(banking), champion="1", weights_sha256="w", evidence=evidence)
    failed = [test.name for test in decision.tests if not test.passed]
    assert failed
    assert tags["ontopic.gate.tests"] == f"{8 - len(failed)} of 8 passed; failed: {', '.join(failed)}"
