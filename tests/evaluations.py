"""Judged answers, made up."""

from __future__ import annotations

import html
from collections.abc import Callable

from qualities import quality_of

from ontopic.config.policy import Policy
from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Decision, Evaluated
from ontopic.evaluation.gate_page import TEMPLATE, gate_context
from ontopic.evaluation.quality import Quality
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.records import Judged, Record, Verdict
from ontopic.reports.design import draw_page
from ontopic.statistics.rates import Rate, rate

SMALL = {"unjudged": 1.0, "unjudged_increase": 1.0}
"""Limits for a gate of so few questions that none unjudged shows little."""


def gate_card(policy: Policy) -> JudgeCard:
    """The card of a judge that may gate under a policy."""
    return JudgeCard(
        judge_id="judge-1",
        scope_given=True,
        accuracy=rate(960, 1000),
        kappa=Rate(value=0.9, low=0.87, high=0.93, n=1000),
        sensitivity=rate(480, 500),
        specificity=rate(480, 500),
        unjudged=0,
        criteria_sha256=criteria_sha256(policy),
    )


def judged(n: int, failing: int, model: str = "m-1", judge_id: str = "judge-1") -> Judged:
    """Questions in scope and out of it by turns, of which the first ones fail."""
    records, verdicts = [], []
    for i in range(n):
        in_scope, passed = i % 2 == 0, i >= failing
        answer = f"Answer of {model} to {i}."
        records.append(
            Record(question=f"Question {i}?", answer=answer, in_scope=in_scope, id=str(i), model_version=model)
        )
        verdicts.append(
            Verdict(
                outcome="pass" if passed else "fail",
                score=0.9 if passed else 0.1,
                explanation="Because.",
                judge_id=judge_id,
                in_scope=in_scope,
                declined=in_scope != passed,
            )
        )
    return Judged(records=records, verdicts=verdicts)


def unjudged(n: int) -> list[Verdict]:
    """Verdicts of a judge that timed out."""
    return [
        Verdict(
            outcome="unjudged",
            score=None,
            explanation="",
            judge_id="judge-1",
            in_scope=i % 2 == 0,
            declined=None,
            cause="timeout",
        )
        for i in range(n)
    ]


def without_verdicts(of: Judged, where: Callable[[int], bool]) -> Judged:
    """The same answers, of which those at these places are unjudged, as the judges of this project say it."""
    verdicts = [
        Verdict(outcome="unjudged", score=None, explanation="", judge_id=v.judge_id, cause="timeout") if where(i) else v
        for i, v in enumerate(of.verdicts)
    ]
    return Judged(records=of.records, verdicts=verdicts)


def evaluated(of: Judged, quality: Quality | None = None) -> Evaluated:
    """One of the gate's two models, with a usual quality where none is given."""
    questions = [Question(question=record.question, in_scope=bool(record.in_scope)) for record in of.records]
    evaluation = Evaluation(questions=questions, records=of.records, verdicts=of.verdicts)
    return Evaluated(evaluation=evaluation, quality=quality or quality_of())


def gate_text(decision: Decision, champion: Evaluated, challenger: Evaluated) -> str:
    """The gate's page with its texts as a reader has them, without Evidently's report beside it."""
    return html.unescape(draw_page("A gate", TEMPLATE, **gate_context(decision, champion, challenger=challenger)))
