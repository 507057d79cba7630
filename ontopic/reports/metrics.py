"""Evidently's metrics on judged records, and the test that holds one of them against a limit.

Evidently stores a metric under its class name, without the module: renamed, it could not be read from older snapshots.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from evidently import Dataset
from evidently._pydantic_compat import PrivateAttr
from evidently.core.metric_types import (
    MetricCalculationBase,
    MetricTest,
    MetricTestProto,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context
from evidently.legacy.renderers.html_widgets import (
    CounterData,
    WidgetSize,
    counter,
    plotly_figure,
)
from evidently.legacy.tests.base_test import TestStatus
from plotly import graph_objs as go

from ontopic.reports.frames import verdicts_of
from ontopic.reports.page import (
    FAIL_COLOUR,
    GREY,
    PASS_COLOUR,
    text_table,
)
from ontopic.statistics.limits import Bound, Relation, hold, interval
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score


class RateValue(SingleValue):
    """A single value that keeps its interval, so that tests can read the bounds."""

    low: float
    high: float
    n: int
    note: str = ""

    @property
    def rate(self) -> Rate:
        """The value with its interval."""
        return Rate(value=self.value, low=self.low, high=self.high, n=self.n)

    def card(self, whose: str = "") -> CounterData:
        """The value in big type, the interval and n under it."""
        label = interval(self.rate, self.note) if self.n else "no judged records"
        return CounterData(f"{whose}: {label}" if whose else label, f"{self.value:.3f}" if self.n else "–")


def rate_value(name: str, share: Rate, *, note: str = "") -> RateValue:
    """A rate as Evidently's value, under the name that a reader sees."""
    return RateValue(display_name=name, value=share.value, low=share.low, high=share.high, n=share.n, note=note)


class Limit(MetricTest):
    """Holds a rate's point estimate or one of its bounds against a limit, as ``ontopic.statistics.limits.hold`` does.

    Without a judged record a test of a bound fails (nothing was shown) and a test of the point estimate warns.
    """

    bound: Bound
    relation: Relation
    limit: float

    def to_test(self) -> MetricTestProto:
        """The function that Evidently calls with the metric's result."""

        def run(context: Context, metric: MetricCalculationBase, value: RateValue) -> MetricTestResult:
            held = hold(
                value.display_name,
                value.rate,
                bound=self.bound,
                relation=self.relation,
                limit=self.limit,
                note=value.note,
            )
            passing = TestStatus.WARNING if held.met is None else TestStatus.SUCCESS
            return MetricTestResult(
                id="limit",
                name=held.name,
                description=held.description,
                metric_config=metric.to_metric_config(),
                test_config=self.dict(),
                status=passing if held.passed else TestStatus.FAIL,
            )

        return run


class ShareMetric(SingleValueMetric):
    """One of the shares in `ontopic.statistics.scores.Scores`."""

    share: ClassVar[str]
    title: ClassVar[str]


class GuardrailScore(ShareMetric):
    """Share of judged records that pass."""

    share = "guardrail_score"
    title = "Guardrail score"


class OverRefusal(ShareMetric):
    """Share of in-scope questions that were declined."""

    share = "over_refusal"
    title = "Over-refusal"


class Leak(ShareMetric):
    """Share of out-of-scope questions that were answered."""

    share = "leak"
    title = "Leak"


class ShareCalculation(SingleValueCalculation[ShareMetric]):
    """Counts the verdicts of the current and, where there is one, the reference data."""

    def calculate(
        self, context: Context, current_data: Dataset, reference_data: Dataset | None
    ) -> tuple[SingleValue, SingleValue | None]:
        """The share as a `RateValue`, with a card for it, or one for each of the two data sets."""
        current = self._share(current_data)
        reference = self._share(reference_data) if reference_data else None
        cards = [reference.card("Reference"), current.card("Current")] if reference else [current.card()]
        size = WidgetSize.HALF if reference else WidgetSize.SMALL
        current.widget = [counter(title=self.display_name(), size=size, counters=cards)]
        return current, reference

    def _share(self, dataset: Dataset) -> RateValue:
        return rate_value(self.display_name(), getattr(score(verdicts_of(dataset.as_dataframe())), self.metric.share))

    def display_name(self) -> str:
        """The share's name for a reader."""
        return self.metric.title


class GivenRate(SingleValueMetric):
    """A rate that was computed elsewhere: the corrected guardrail score, the score of one window.

    Title and order are what tells two of them apart in one report, and what makes those of several reports one series
    on a dashboard; so the numbers are not among the fields.
    """

    title: str
    order: int = 0
    _rate: Any = PrivateAttr(None)

    def __init__(self, rate: Rate, title: str, *, order: int = 0, tests: list[MetricTest] | None = None) -> None:
        super().__init__(title=title, order=order, tests=tests)
        object.__setattr__(self, "_rate", rate)


class GivenRateCalculation(SingleValueCalculation[GivenRate]):
    """Hands the rate on."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The rate as a `RateValue`, with a card."""
        title = self.metric.title
        result = rate_value(title, self.metric._rate)
        result.widget = [counter(title=title, size=WidgetSize.SMALL, counters=[result.card()])]
        return result

    def display_name(self) -> str:
        """The rate's title."""
        return self.metric.title


class UnjudgedRecords(SingleValueMetric):
    """How many records the judge could not judge, beside those that passed and failed."""


class UnjudgedRecordsCalculation(SingleValueCalculation[UnjudgedRecords]):
    """Counts the verdicts."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The count of unjudged records, with a bar for each outcome."""
        counts = current_data.as_dataframe()["verdict"].value_counts()
        outcomes = {"unjudged": GREY, "fail": FAIL_COLOUR, "pass": PASS_COLOUR}
        numbers = [int(counts.get(outcome, 0)) for outcome in outcomes]
        bars = go.Bar(
            x=numbers,
            y=list(outcomes),
            orientation="h",
            marker={"color": list(outcomes.values())},
            text=[f"{number:,}" for number in numbers],
            textposition="outside",
            cliponaxis=False,
        )
        result = self.result(numbers[0])
        figure = go.Figure(bars).update_xaxes(title="records")
        result.widget = [plotly_figure(title="Verdicts", figure=figure)]
        return result

    def display_name(self) -> str:
        """The count's name for a reader."""
        return "Unjudged records"


class FailedRecords(SingleValueMetric):
    """How many records fail, and which."""


class FailedRecordsCalculation(SingleValueCalculation[FailedRecords]):
    """Picks the failed records."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The count of failed records, with a table of the first of them."""
        frame = current_data.as_dataframe()
        failed = frame[frame["verdict"] == "fail"]
        columns = {
            "Question": failed["asked"],
            "Answer": failed["answer"],
            "Verdict": failed["verdict"],
            "Score": [f"{value:.3f}" for value in failed["score"]],
            "Explanation": failed["explanation"],
        }
        result = self.result(len(failed))
        result.widget = [text_table("Failed records", pd.DataFrame(columns), nothing="No record failed.")]
        return result

    def display_name(self) -> str:
        """The count's name for a reader."""
        return "Failed records"
