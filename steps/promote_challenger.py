"""Write what the gate found on record; who passed becomes the champion, at once or by stages, or waits for approval."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.policy import Policy
from ontopic.config.watch_settings import PromotionSettings
from ontopic.evaluation.evidence import Evidence, gate_tags
from ontopic.evaluation.gate import Decision, Evaluated
from ontopic.evaluation.gate_entry import LOOP, enter_gate, enter_refusal, has_waited, outcome_of
from ontopic.evaluation.gate_facts import Weights, gate_facts
from ontopic.judges.cards.card import JudgeCard
from ontopic.registry.promotions import of_gate, open_registry
from ontopic.registry.rollouts import has_begun, promote_or_roll_out
from ontopic.registry.sign_off import SignOff
from ontopic.registry.versions import find
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def promote_challenger(
    *,
    decision: Decision,
    champion: Evaluated,
    challenger: Evaluated,
    judge_card: JudgeCard,
    evidence: Evidence,
    approval: PromotionSettings,
    policy: Policy,
    workspace: Workspace,
) -> Annotated[bool, "promoted"]:
    """Returns whether the challenger is the champion now.

    Args:
        champion, challenger: what the decision is on.
    """
    import mlflow

    from ontopic.evaluation.gate_runs import log_gate
    from ontopic.registry.descriptions import describe

    before, after, name = champion.evaluation, challenger.evaluation, policy.registered_model
    old, new = before.model_version, after.model_version
    model = find(name, new, workspace=workspace)
    registry = open_registry(workspace, name)
    weights = Weights.of(folder_sha256(model.folder), tags=registry.tags_of(new), champion_tags=registry.tags_of(old))
    facts = gate_facts(
        decision,
        judge_card,
        champion=before,
        challenger=after,
        evidence=evidence,
        weights=weights,
        workspace=workspace,
    )
    # The version's own run keeps the page too, beside the weights, and what it links to.
    for page in (page for page in (decision.report, decision.evidently) if page.is_file()):
        mlflow.MlflowClient().log_artifact(model.run_id, str(page), "gate")
    gate = enter_gate(registry, new, facts=facts, at=evidence.at)
    sha256 = weights.challenger_sha256
    registry.tag(new, gate_tags(decision, judge_card, champion=old, weights_sha256=sha256, evidence=evidence))
    if not decision.passed:
        enter_refusal(registry, gate, decision=decision)
    elif registry.champion() != new and approval.approval == "automatic":
        why = f"passed the gate against version {old}: {decision.report.name}"
        said = {"by_hand": False, **of_gate(gate)}
        if not has_begun(registry, gate):
            promote_or_roll_out(registry, new, settings=approval, by=LOOP, why=why, at=evidence.at, facts=said)
    elif registry.champion() != new and not has_waited(registry, gate):
        by = evidence.trained_by or ""
        SignOff(approval, policy, workspace=workspace).ask(
            new, gate=gate, champion=old, weights_sha256=sha256, trained_by=by
        )
    log_gate(decision, gate, outcome=outcome_of(registry, gate))
    describe(registry, new)
    return decision.passed and registry.champion() == new
