"""The page on a decision of the gate, drawn by Evidently: it computes and decides nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
from evidently import Dataset, Report
from evidently._pydantic_compat import PrivateAttr
from evidently.core.metric_types import (
    MetricCalculationBase,
    MetricResult,
    MetricTest,
    MetricTestProto,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import CounterData, WidgetSize, counter, table_data, text_widget
from evidently.legacy.tests.base_test import TestStatus

from ontopic.evaluation.advice import detectable_in_words
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import IMPROVEMENT, PERPLEXITY, PREFERENCE, SIMILARITY, Decision, Evaluated
from ontopic.evaluation.judge_errors_page import judge_errors_widgets
from ontopic.evaluation.quality import Quality
from ontopic.evaluation.segments import segments
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import GivenRate, rate_value
from ontopic.reports.page import names_of, test_widgets_of, text_table, widgets_of, write_page
from ontopic.statistics.limits import level
from ontopic.statistics.rates import Rate


class GivenOutcome(MetricTest):
    """Hands on what a test of the gate found."""

    name: str
    passed: bool
    description: str

    def run(self, context: Context, metric: MetricCalculationBase, value: MetricResult) -> MetricTestResult:
        """The outcome; Evidently would put the metric's name before a description that has its own."""
        return self.to_test()(context, metric, value)

    def to_test(self) -> MetricTestProto:
        """The function that gives the outcome, whatever the metric's value."""

        def given(context: Context, metric: MetricCalculationBase, value: MetricResult) -> MetricTestResult:
            return MetricTestResult(
                id="given",
                name=self.name,
                description=self.description,
                metric_config=metric.to_metric_config(),
                test_config=self.dict(),
                status=TestStatus.SUCCESS if self.passed else TestStatus.FAIL,
            )

        return given


class GateNumber(SingleValueMetric):
    """A number that the gate decided on: the challenger's, beside the champion's where each model has one."""

    title: str
    _numbers: Any = PrivateAttr(())
    _note: Any = PrivateAttr("")

    def __init__(self, title: str, *numbers: Rate, note: str = "", tests: list[MetricTest] | None = None) -> None:
        super().__init__(title=title, tests=tests)
        object.__setattr__(self, "_numbers", numbers)
        object.__setattr__(self, "_note", note)


class GateNumberCalculation(SingleValueCalculation[GateNumber]):
    """Hands the number on."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The challenger's number as a `RateValue`, with a card for each."""
        values = [rate_value(self.metric.title, rate, note=self.metric._note) for rate in self.metric._numbers]
        whose = ["Champion", "Challenger"] if len(values) > 1 else [""]
        cards: list[CounterData] = [value.card(name) for name, value in zip(whose, values, strict=True)]
        values[-1].widget = [counter(title=self.metric.title, size=WidgetSize.HALF, counters=cards)]
        return values[-1]

    def display_name(self) -> str:
        """The number's title."""
        return self.metric.title


class DifferingVerdicts(SingleValueMetric):
    """On how many questions the two models' verdicts differ, and which."""


class DifferingVerdictsCalculation(SingleValueCalculation[DifferingVerdicts]):
    """Picks the questions."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The count, with a table of both answers; raises ValueError without reference data."""
        if reference_data is None:
            raise ValueError("differing verdicts need the champion as reference data")
        champion = reference_data.as_dataframe().reset_index(drop=True)
        challenger = current_data.as_dataframe().reset_index(drop=True)
        differs = champion["verdict"] != challenger["verdict"]
        columns = {
            "Question": champion["asked"],
            "Champion": champion["verdict"],
            "Champion's answer": champion["answer"],
            "Challenger": challenger["verdict"],
            "Challenger's answer": challenger["answer"],
        }
        result = self.result(int(differs.sum()))
        nothing = "The two have the same verdict on every question."
        result.widget = [
            text_table("Questions with different verdicts", pd.DataFrame(columns)[differs], nothing=nothing)
        ]
        return result

    def display_name(self) -> str:
        """The count's name for a reader."""
        return "Questions with different verdicts"


def write_gate_page(title: str, decision: Decision, *, champion: Evaluated, challenger: Evaluated) -> None:
    """Write the page on a decision to ``decision.report``, whole or not at all; its folder is made.

    Args:
        champion, challenger: what was decided on.
    """
    before, after = champion.evaluation, challenger.evaluation
    report = Report([*_numbers(decision), DifferingVerdicts()])
    frames = [verdict_frame(each.records, each.verdicts) for each in (after, before)]
    snapshot = report.run(dataset_of(frames[0], after.verdicts), dataset_of(frames[1], before.verdicts), name=title)
    *widgets, differing = widgets_of(snapshot)
    page = [
        text_widget(title=title, text=_summary(decision, champion, challenger=challenger)),
        *test_widgets_of(snapshot),
        *widgets,
        _readings(decision),
        *_without_guard(decision),
        *_causes(before, after),
        _languages_table(before, after),
        _quality_table(champion.quality, challenger.quality),
        *judge_errors_widgets(decision, champion.evaluation, challenger=challenger.evaluation),
        differing,
    ]
    write_page(title, page, out=decision.report)


def _numbers(decision: Decision) -> list[SingleValueMetric]:
    """The decision's numbers as metrics; the first one has all tests."""
    before, after, compared = decision.champion, decision.challenger, decision.comparison
    outcomes: list[MetricTest] = [
        GivenOutcome(name=test.name, passed=test.passed, description=test.description) for test in decision.tests
    ]
    metrics: list[SingleValueMetric] = [
        GateNumber("Guardrail score", before.guardrail_score, after.guardrail_score, tests=outcomes),
        GateNumber(IMPROVEMENT, compared.rate, note=compared.note),
        GateNumber("Over-refusal", before.over_refusal, after.over_refusal),
        GateNumber("Leak", before.leak, after.leak),
    ]
    if decision.sealed is not None:
        metrics.append(
            GateNumber("Improvement on the sealed questions", decision.sealed.rate, note=decision.sealed.note)
        )
    if decision.quality.n:
        metrics.append(GivenRate(decision.quality, SIMILARITY))
    if decision.preference is not None:
        metrics.append(GivenRate(decision.preference, PREFERENCE))
    if decision.perplexity is not None:
        metrics.append(GivenRate(decision.perplexity, PERPLEXITY))
    return metrics


def _summary(decision: Decision, champion: Evaluated, *, challenger: Evaluated) -> str:
    before, after = champion.evaluation, challenger.evaluation
    failed = sum(not test.passed for test in decision.tests)
    judges = names_of(verdict.judge_id for verdict in (*before.verdicts, *after.verdicts))
    found = f"The challenger fails {failed} of {len(decision.tests)} tests." if failed else "The challenger passes."
    unjudged = (
        f"{decision.champion.unjudged:,} of the champion's and {decision.challenger.unjudged:,} of the challenger's"
    )
    return (
        f"Champion **{names_of([before.model_version])}** and challenger **{names_of([after.model_version])}** "
        f"answered the same {len(before.records):,} questions, judged by **{judges}**. **{found}** "
        "The tests read the bounds of the intervals, not the values; they are the 95 % ones, but for the improvement, "
        f"which is held at {level(decision.alpha)}. **Unjudged** are {unjudged} answers, which "
        f"the worst case counts for the champion. {detectable_in_words(decision)}"
    )


def _readings(decision: Decision) -> BaseWidgetInfo:
    """Every share as judged and in the worst case, champion beside challenger, with the counts behind it."""
    worst = decision.worst or decision
    sides = (decision.champion, decision.challenger, worst.champion, worst.challenger)
    rows = [
        [title, *(str(getattr(scores, name)) for scores in sides)]
        for name, title in (("guardrail_score", "guardrail score"), ("over_refusal", "over-refusal"), ("leak", "leak"))
    ]
    rows.append(["unjudged", *(f"{side.unjudged:,}" for side in sides[:2]), "count as passes", "count as fails"])
    compared = (decision.comparison, worst.comparison)
    for alpha in dict.fromkeys((0.05, decision.alpha)):
        read = ", which the test reads" if alpha == decision.alpha else ""
        found = [f"{of.rate_at(alpha)}; {of.wins:,} wins, {of.losses:,} losses" for of in compared]
        rows.append([f"improvement, {level(alpha)} interval{read}", "", found[0], "", found[1]])
    if decision.unjudged is not None:
        rows.append(["unjudged, challenger minus champion", "", str(decision.unjudged.rate), "", ""])
    names = ["", "Champion", "Challenger", "Champion, worst case", "Challenger, worst case"]
    return table_data(title="Two readings: as judged, and in the worst case", column_names=names, data=rows)


def _without_guard(decision: Decision) -> list[BaseWidgetInfo]:
    """The models alone beside what users get; no table where no guard is enforced."""
    alone = decision.alone
    if alone is None:
        return []
    sides = (decision.champion, decision.challenger, alone.champion, alone.challenger)
    rows = [
        [title, *(str(getattr(scores, name)) for scores in sides)]
        for name, title in (("guardrail_score", "guardrail score"), ("over_refusal", "over-refusal"), ("leak", "leak"))
    ]
    rows.append(["improvement", "", str(decision.improvement), "", str(alone.improvement)])
    names = ["", "Champion, guarded", "Challenger, guarded", "Champion alone", "Challenger alone"]
    title = "What users get behind the guard, which the tests read, and the models alone"
    return [table_data(title=title, column_names=names, data=rows)]


def _causes(champion: Evaluation, challenger: Evaluation) -> list[BaseWidgetInfo]:
    """Why answers are unjudged; no table where none is."""
    counts = [Counter(v.cause or "" for v in of.verdicts if v.outcome == "unjudged") for of in (champion, challenger)]
    rows = [(cause, *(str(found[cause]) for found in counts)) for cause in dict.fromkeys([*counts[1], *counts[0]])]
    if not rows:
        return []
    frame = pd.DataFrame(rows, columns=["Cause", "Champion's answers", "Challenger's answers"])
    return [text_table("Why answers are unjudged", frame, nothing="")]


def _languages_table(champion: Evaluation, challenger: Evaluation) -> BaseWidgetInfo:
    """Both models by the language of the question."""
    rows = [
        [each.name, f"{each.n:,}"]
        + [str(getattr(side, name)) for name in ("guardrail_score", "over_refusal") for side in sides]
        + [f"{side.unjudged:,}" for side in sides]
        for each in segments(champion, challenger)
        if each.by == "language"
        for sides in [(each.champion, each.challenger)]
    ]
    numbers = ("guardrail score", "over-refusal", "unjudged")
    columns = ["Language", "n", *(f"{whose}, {number}" for number in numbers for whose in ("Champion", "challenger"))]
    return table_data(title="By the language of the question", column_names=columns, data=rows)


def _quality_table(champion: Quality, challenger: Quality) -> BaseWidgetInfo:
    """What the answers in scope are like, one measure a row, champion beside challenger."""
    before, after = champion.summary(), challenger.summary()
    rows = [[name, before[name].with_interval, after[name].with_interval] for name in before]
    rows.append(["perplexity on general text", f"{champion.perplexity:.1f}", f"{challenger.perplexity:.1f}"])
    title = f"Answers to {len(champion.questions):,} questions in scope that have a reference"
    return table_data(title=title, column_names=["", "Champion", "Challenger"], data=rows)
