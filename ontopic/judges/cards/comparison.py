"""Several judges and templates on the same labelled records: which is the best, and is it really?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlflow
from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, JudgeSettings
from ontopic.data.labelled import LabelledRecord
from ontopic.errors import UserError
from ontopic.judges.bridges.mlflow_scorers import register_scorers
from ontopic.judges.cards.bar import may_gate
from ontopic.judges.cards.calibration import Measured, calibration_records, kept_or_measured, measure, with_scope
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.cards.comparison_page import comparison_report
from ontopic.judges.cards.page import card_page, card_report, comparison_page
from ontopic.judges.judge import Judge
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.opening import open_judge
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.rates import rate, with_interval


class JudgesCompared(BaseModel):
    """Judges on the same labelled records.

    Attributes:
        measured: in the order in which the judges were given.
        ranked: the same, the best first.
        told_scope: the first judge given and the best one once more, told the scope as in the gate; empty where no
            labelled record has a scope.
        sentences: what the comparison says.
        pages: the page of each card, in the order given, and of those of ``told_scope``.
        page: the page that compares them.
    """

    model_config = ConfigDict(frozen=True)
    measured: list[Measured]
    ranked: list[Measured]
    told_scope: list[Measured]
    sentences: list[str]
    pages: list[Path]
    page: Path


def compare_judges(
    choices: Sequence[JudgeChoice],
    policy: Policy,
    *,
    workspace: Workspace,
    records: Sequence[LabelledRecord] | None = None,
    source: str = "the calibration split",
) -> JudgesCompared:
    """Measure judges on the same labelled records; a page each, one that compares them, and an MLflow run each.

    LLM judges are scorers of the active experiment then. The runs go there, nested in the active run where one is.

    Args:
        records: to measure on; those without a label are left out. By default those of the calibration split, on
            which cards are kept and no judge is measured twice.
        source: what the records are, in words.

    Raises:
        UserError: a judge cannot be opened, or there is no labelled record; nothing is judged then.
    """
    labelled = None if records is None else [record for record in records if record.label]
    if labelled == []:
        raise UserError(f"{source} holds no record with a label; give some the field 'label', pass or fail")
    if labelled is None:
        calibration_records(policy, "calibration")  # before minutes of learning
    opened: dict[str, tuple[JudgeSettings, Judge]] = {}
    for choice in choices:
        judge = open_judge(choice, policy, workspace=workspace)
        opened.setdefault(judge.id, (choice.settings, judge))  # the same one twice is one
    pages: list[Path] = []

    def measured_on(judge_id: str, *, scope_given: bool) -> Measured:
        settings, judge = opened[judge_id]
        if labelled is None:
            found = kept_or_measured(judge, policy, workspace=workspace, scope_given=scope_given)
        else:
            asked = with_scope(labelled, of=source) if scope_given else labelled
            found = measure(judge, policy, records=asked, scope_given=scope_given)
        page = card_page(judge.id, policy.registered_model, reports=workspace.reports, scope_given=scope_given)
        card_report(found, policy, source=source, out=page)
        _track(found, settings, page=page)
        pages.append(page)
        return found

    measured = [measured_on(judge_id, scope_given=False) for judge_id in opened]
    asking = zip(opened.values(), measured, strict=True)
    register_scorers([(judge, each.card) for (_, judge), each in asking if isinstance(judge, LLMJudge)])
    ranked = rank(measured)
    # Judges of a server cost money: what may gate are the first, which is the configured one, and whichever is best.
    may_gate = dict.fromkeys((measured[0].card.judge_id, ranked[0].card.judge_id))
    told = [measured_on(judge_id, scope_given=True) for judge_id in may_gate if _has_scope(measured[0].records)]
    sentences = [
        difference_in_words(measured),
        *chosen_in_words(ranked, kept=labelled is None),
        *(gate_in_words(m.card, policy) for m in told),
    ]
    out = comparison_page(policy.registered_model, workspace.reports)
    of_card = dict(zip(opened, pages, strict=False))  # those of what was told the scope come after them
    comparison_report(ranked, sentences, policy=policy, source=source, out=out, pages=of_card)
    return JudgesCompared(measured=measured, ranked=ranked, told_scope=told, sentences=sentences, pages=pages, page=out)


def _has_scope(records: Sequence[LabelledRecord]) -> bool:
    return any(record.in_scope is not None for record in records)


def _track(measured: Measured, settings: JudgeSettings, *, page: Path) -> None:
    card = measured.card
    named = {name: getattr(settings, name, None) for name in ("kind", "model", "template", "metric", "rule")}
    name = f"{card.judge_id}, told the scope" if card.scope_given else card.judge_id
    with mlflow.start_run(run_name=name, nested=mlflow.active_run() is not None):
        mlflow.set_tag("stage", "calibration")
        mlflow.log_params({name: value for name, value in named.items() if value is not None})
        mlflow.log_params(
            {name: getattr(card, name) for name in ("judge_id", "scope_given", "labels_sha256", "criteria_sha256")}
        )
        mlflow.log_metrics(card.metrics())
        mlflow.log_dict(card.model_dump(mode="json"), "judge_card.json")
        mlflow.log_artifact(str(page))


def rank(measured: Sequence[Measured]) -> list[Measured]:
    """The best judge first: by the lower bound of accuracy, so that a judge of few records is not the best by luck."""
    return sorted(measured, key=lambda m: (-m.card.accuracy.low, m.card.judge_id))


def right_verdicts_compared(first: Measured, second: Measured) -> Comparison:
    """The first judge's share of right verdicts minus the second's, in pairs, with the exact McNemar test.

    Raises:
        ValueError: they were not measured on the same records.
    """
    if first.records != second.records:
        raise ValueError("judges are compared on the same labelled records")
    return compare(_correctness(second), _correctness(first))


def difference_in_words(measured: Sequence[Measured]) -> str:
    """Whether the two best judges differ; of one judge, that there is nothing to compare."""
    if len(measured) < 2:
        return "One judge was measured: there is nothing to compare it with."
    best, next_best = rank(measured)[:2]
    d = right_verdicts_compared(best, next_best)
    first, second = best.card.judge_id, next_best.card.judge_id
    if d.n == 0:
        return f"{first} and {second} judged no record in common, so nothing is known of their difference."
    if d.p_value < 0.05:
        told = f"{first} is right more often than {second}" if d.difference > 0 else f"{second} is right more often"
    else:
        told = f"{first} and {second} cannot be told apart"
    difference = with_interval(d.difference, d.low, high=d.high, signed=True)
    return (
        f"{told}: of the {d.n:,} records that both judged, {first} alone was right on {d.wins:,} and {second} alone on "
        f"{d.losses:,}; difference {difference}, McNemar p = {d.p_value:.2g}."
    )


def chosen_in_words(ranked: Sequence[Measured], *, kept: bool) -> list[str]:
    """That the best of several was chosen on the records that its card is of, and what is left of its lower bound.

    Args:
        kept: whether these are the records of the kept cards, so that others are at hand.
    """
    best, several = ranked[0].card, len(ranked)
    if several < 2 or not best.accuracy.n:
        return []
    right = round(best.accuracy.value * best.accuracy.n)
    low = rate(right, best.accuracy.n, level=1 - 0.05 / several).low
    fresh = " Fresh records say more: python run.py calibrate --split evaluation." if kept else ""
    return [
        f"{best.judge_id} is the best of {several} on the very records of its card, which flatters it: with the error "
        f"shared among the {several} (Bonferroni), its accuracy is at least {low:.3f}.{fresh}"
    ]


def gate_in_words(card: JudgeCard, policy: Policy) -> str:
    """Whether a judge that was told the scope may gate: its lower bounds against the policy's bar."""
    bar = policy.judge_bar
    may = may_gate(card, bar)
    return (
        f"Told the scope, as the gate tells it, {card.judge_id} has accuracy {card.accuracy} and kappa {card.kappa}: "
        f"it {'may' if may else 'may not'} gate (judge_bar: accuracy {bar.accuracy:g}, kappa {bar.kappa:g}, by the "
        "lower bounds)."
    )


def _correctness(measured: Measured) -> list[Verdict]:
    """A pass for each right verdict, a fail for each wrong one; a record without a label counts as unjudged."""
    verdicts = []
    for record, said in zip(measured.records, measured.verdicts, strict=True):
        if record.label is None or said.outcome == "unjudged":
            verdicts.append(Verdict(outcome="unjudged", score=None, explanation="", judge_id=said.judge_id))
        else:
            verdicts.append(
                Verdict(
                    outcome="pass" if said.outcome == record.label else "fail",
                    score=None,
                    explanation="",
                    judge_id=said.judge_id,
                )
            )
    return verdicts
