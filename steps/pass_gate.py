"""Hold the challenger against the champion and the policy's limits."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.evaluation import gate, gate_page
from ontopic.evaluation.gate import Decision, Evaluated
from ontopic.evaluation.looks import Look
from ontopic.judges.cards.card import JudgeCard
from ontopic.reports.page import page_name
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__),
)
def pass_gate(
    *,
    champion: Evaluated,
    challenger: Evaluated,
    winners: list[str],
    look: Look,
    policy: Policy,
    judge_card: JudgeCard,
    workspace: Workspace,
) -> Annotated[Decision, "decision"]:
    """Returns the gate's decision on the drawn questions, of which there is a page and a copy in MLflow."""
    new, old = challenger.evaluation.model_version, champion.evaluation.model_version
    report = workspace.reports / page_name("gate", policy.registered_model, "version", new, "against", old)
    decision = gate.decide(
        champion, challenger, winners=winners, policy=policy, card=judge_card, report=report, alpha=look.alpha
    )
    if look.rehearsal is not None:
        decision = look.rehearsal.added_to(decision)
    title = f"OnTopic gate: {policy.name}, version {new} against {old}"
    gate_page.write_gate_page(title, decision, champion=champion, challenger=challenger)
    mlflow.set_tag("gate", "passed" if decision.passed else "failed")
    mlflow.log_artifact(str(report), "gate")
    mlflow.log_dict(decision.model_dump(mode="json"), "gate/decision.json")
    return decision
