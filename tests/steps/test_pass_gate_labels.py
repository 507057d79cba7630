"""The gate's step keeps the answers for a person to label, and goes by the labels when it runs again."""

from __future__ import annotations

from pathlib import Path

import mlflow
from evaluations import SMALL, evaluated, gate_card, judged

from ontopic.config.policy import GateLimits, Policy
from ontopic.data.labels import LabelStore, labels_of
from ontopic.evaluation.discordant import answers_to_label
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.gate import JUDGE_ERRORS, Decision
from ontopic.evaluation.looks import Look
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from steps.pass_gate import GateTerms, pass_gate

LIMITS = GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0, **SMALL)


def test_labels_of_its_answers_change_the_decision(banking: Policy, tmp_path: Path) -> None:
    policy = banking.model_copy(update={"gate": LIMITS})
    card = gate_card(policy)
    workspace = open_workspace(tmp_path)
    open_tracking(workspace, "test")
    before, after = evaluated(judged(100, 60, "1")), evaluated(judged(100, 3, "2"))

    def decided() -> Decision:
        with mlflow.start_run():
            decision: Decision = pass_gate.entrypoint(
                champion=before,
                challenger=after,
                winners=[],
                look=Look(key="k", number=1, of_policy=1, alpha=0.05, spent=0.0, seed=1, rehearsal=None),
                evidence=Evidence(policy_sha256=policy.sha256, questions_sha256="", trained_by="anna"),
                policy=policy,
                terms=GateTerms(judge_card=card, labels_sha256=""),
                workspace=workspace,
            )
        return decision

    decision = decided()
    assert decision.passed and decision.judge_errors and decision.judge_errors.found is None
    store = LabelStore(labels_of(policy, workspace))
    # The champion's answers were all fine, and what the judge took for the challenger's wins was none.
    for record in answers_to_label(workspace, policy.registered_model, store=store, n=60):
        store.add(record, "pass", by="discordant")
    decision = decided()
    failed = [test for test in decision.tests if not test.passed]
    assert [test.name for test in failed] == [JUDGE_ERRORS]
    assert decision.judge_errors and decision.judge_errors.labelled_discordant == 57
