"""Evidently's report on a decision of the gate, beside its page: it computes and decides nothing."""

from __future__ import annotations

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
from evidently.legacy.renderers.html_widgets import CounterData, WidgetSize, counter, text_widget
from evidently.legacy.tests.base_test import TestStatus

from ontopic.evaluation.gate import IMPROVEMENT, PERPLEXITY, PREFERENCE, SIMILARITY, Decision, Evaluated
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import GivenRate, rate_value
from ontopic.reports.page import plain_markdown, test_widgets_of, text_table, widgets_of, write_page
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


def write_gate_report(title: str, decision: Decision, *, champion: Evaluated, challenger: Evaluated) -> None:
    """Write Evidently's report on a decision to ``decision.evidently``, whole or not at all; its folder is made.

    Args:
        champion, challenger: what was decided on.
    """
    before, after = champion.evaluation, challenger.evaluation
    report = Report([*_numbers(decision), DifferingVerdicts()])
    frames = [verdict_frame(each.records, each.verdicts) for each in (after, before)]
    snapshot = report.run(dataset_of(frames[0], after.verdicts), dataset_of(frames[1], before.verdicts), name=title)
    about = f"The numbers and tests of a decision, as Evidently reports them. The page on it: {decision.report.name}"
    page = [text_widget(title=title, text=plain_markdown(about)), *test_widgets_of(snapshot), *widgets_of(snapshot)]
    write_page(title, page, out=decision.evidently)


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
