"""Take a look at held-out questions: count it in the promotion record, and draw its questions."""

from __future__ import annotations

from typing import Annotated

import mlflow
from zenml import step

from ontopic.config.policy import Policy
from ontopic.data.labelled import Questions
from ontopic.data.sample import Sample
from ontopic.evaluation import looks
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.looks import Look
from ontopic.evaluation.rehearsal import Rehearsal
from ontopic.judges.cards.card import JudgeCard
from ontopic.state.workspace import Workspace


@step(experiment_tracker=True, enable_cache=False)
def open_look(
    *,
    champion: str,
    challenger: str,
    sample: Sample,
    rehearsal: Rehearsal | None,
    judge_card: JudgeCard,
    policy: Policy,
    evidence: Evidence,
    workspace: Workspace,
) -> tuple[Annotated[Look, "look"], Annotated[Questions, "questions"], Annotated[Evidence, "evidence"]]:
    """Returns the look, its questions, shuffled, and the evidence with the look in it.

    Not cached, as the record says which look it is. The same champion, challenger, policy, judge and sample give the
    same look, so that what follows comes from the cache, and a gate that was killed goes on. Where the rehearsal
    failed, its questions are handed on: their answers are in the cache, and the gate refuses on them.
    """
    look, questions = looks.open_look(
        sample,
        champion=champion,
        challenger=challenger,
        judge_id=judge_card.judge_id,
        policy=policy,
        rehearsal=rehearsal,
        workspace=workspace,
    )
    if look.taken:
        mlflow.log_params({"look": look.of_policy, "look_alpha": look.alpha, "look_seed": look.seed})
    return look, Questions(questions), looks.with_look(evidence, look, questions=questions)
