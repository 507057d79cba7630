"""The gate's step: it tests the improvement at the alpha of its look, and refuses what its rehearsal refused."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from evaluations import evaluated, gate_card, judged

from ontopic.config.policy import Policy
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.looks import Look, alpha_at
from ontopic.evaluation.rehearsal import Rehearsal, rehearsed
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from steps.pass_gate import GateTerms, pass_gate


def look(number: int, rehearsal: Rehearsal | None = None) -> Look:
    alpha = alpha_at(number)
    return Look(key="k", number=number, of_policy=number, alpha=alpha, spent=0.0, seed=1, rehearsal=rehearsal)


@pytest.mark.parametrize(
    ("number", "behind", "passes"),
    [(1, None, True), (60, None, False), (1, False, True), (1, True, False)],
    ids=["first look", "60th look", "rehearsed", "rehearsal failed"],
)
def test_it_goes_by_its_look(number: int, behind: bool | None, passes: bool, banking: Policy, tmp_path: Path) -> None:
    """8 wins and no loss in 200: the lower bound of the usual interval is above 0, and that of a 60th look is not."""
    policy = banking.model_copy(update={"gate": banking.gate.model_copy(update={"improvement": 0})})
    card = gate_card(policy)
    rehearsal = None
    if behind is not None:
        sides = [judged(400, 40), judged(400, 50 if behind else 10)]
        rehearsal = rehearsed(*(evaluated(side).evaluation for side in sides), limits=policy.gate)
    workspace = open_workspace(tmp_path)
    open_tracking(workspace, "test")
    with mlflow.start_run():
        decision = pass_gate.entrypoint(
            champion=evaluated(judged(200, 12)),
            challenger=evaluated(judged(200, 4, model="m-2")),
            winners=[],
            look=look(number, rehearsal),
            evidence=Evidence(policy_sha256=policy.sha256, questions_sha256="", trained_by="anna"),
            policy=policy,
            terms=GateTerms(judge_card=card, labels_sha256=""),
            workspace=workspace,
        )
    assert decision.passed is passes and decision.alpha == alpha_at(number)
    assert decision.lineage and (decision.lineage.policy, decision.lineage.trained_by) == (policy.name, "anna")
    assert decision.lineage.run_id and decision.report.is_file() and decision.evidently.is_file()
    failed = [test.name.split(",")[0].split(" on ")[0] for test in decision.tests if not test.passed]
    assert failed == ([] if passes else ["Rehearsal"] if behind else ["Improvement"])
