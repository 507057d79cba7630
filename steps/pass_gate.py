"""Hold the challenger against the champion and the policy's limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict
from zenml import step

from ontopic.config.policy import Policy
from ontopic.data.labels import SPLIT, labels_of, load_labels
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.gate import Decision, Evaluated
from ontopic.evaluation.looks import Look
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports
from steps.pages import PAGES


class GateTerms(BaseModel):
    """What the gate goes by besides the policy.

    Attributes:
        judge_card: of the judge as it judges in the gate, told the scope.
        labels_sha256: of people's labels; a part of the cache key, as they can change the decision.
    """

    model_config = ConfigDict(frozen=True)
    judge_card: JudgeCard
    labels_sha256: str


@step(
    experiment_tracker=True,
    cache_policy=depends_on_imports(__file__, ignoring=["evidence"]),
    output_materializers=PAGES,
)
def pass_gate(
    *,
    champion: Evaluated,
    challenger: Evaluated,
    winners: list[str],
    look: Look,
    evidence: Evidence,
    policy: Policy,
    terms: GateTerms,
    workspace: Workspace,
) -> Annotated[Decision, "decision"]:
    """Returns the gate's decision on the drawn questions, of which there is a page and a copy in MLflow.

    The pairs of answers are kept for a person to label.

    Args:
        evidence: for the page, which says who started the attempt; another one is no reason to decide again.
    """
    import mlflow

    from ontopic.evaluation import discordant, gate, gate_page, judge_errors, lineage
    from ontopic.reports.page_name import page_name

    before, after, name = champion.evaluation, challenger.evaluation, policy.registered_model
    new, old = after.model_version, before.model_version
    report = workspace.reports / page_name("gate", name, "version", new, "against", old)
    errors = judge_errors.judge_errors(
        before,
        after,
        labels=load_labels(labels_of(policy, workspace), SPLIT["discordant"]),
        earlier=discordant.kept_pairs(workspace, name),
        card=terms.judge_card,
        limits=policy.gate,
        registered_model=name,
    )
    discordant.keep_pairs(discordant.pairs_of(before, after, registered_model=name), workspace)
    decision = gate.decide(
        champion,
        challenger,
        winners=winners,
        policy=policy,
        card=terms.judge_card,
        report=report,
        alpha=look.alpha,
        judge_errors=errors,
    )
    if look.rehearsal is not None:
        decision = look.rehearsal.added_to(decision)
    made = lineage.lineage_of(policy, evidence, versions=(old, new), workspace=workspace)
    decision = decision.model_copy(update={"lineage": made})
    title = f"OnTopic gate: {policy.name}, version {new} against {old}"
    gate_page.write_gate_page(title, decision, champion=champion, challenger=challenger)
    mlflow.set_tag("gate", "passed" if decision.passed else "failed")
    for page in (decision.report, decision.evidently):
        mlflow.log_artifact(str(page), "gate")
    mlflow.log_dict(decision.model_dump(mode="json"), "gate/decision.json")
    return decision
