"""Evidently's metrics on judged records, and the test that holds one of them against a limit.

Evidently stores a metric under its class name, without the module: renamed, it could not be read from older snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from evidently import Dataset, Report
from evidently._pydantic_compat import PrivateAttr
from evidently.core.container import MetricContainer
from evidently.core.metric_types import (
    Metric,
    MetricCalculationBase,
    MetricTest,
    MetricTestProto,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
)
from evidently.core.report import Context, Snapshot
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import (
    CounterData,
    WidgetSize,
    counter,
    plotly_figure,
    table_data,
    text_widget,
)
from evidently.legacy.tests.base_test import TestStatus
from plotly import graph_objs as go
from pydantic import BaseModel, ConfigDict

from ontopic.reports.page import (
    FAIL_COLOUR,
    GREY,
    PASS_COLOUR,
    names_of,
    period_of,
    test_widgets_of,
    text_table,
    widgets_of,
    write_page,
)
from ontopic.reports.verdict_frame import dataset_of, verdicts_of
from ontopic.statistics.limits import Bound, Relation, hold, interval
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, score

MAX_TICKS = 12


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
            "Question": failed["question"],
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


class TestOutcome(BaseModel):
    """What one Evidently test found.

    Attributes:
        passed: whether the report gives no reason to stop. A window without a judged record passes with a warning in
            its description; a gate test without a judged record fails.
        description: one sentence with the numbers: bound, limit and n.
    """

    model_config = ConfigDict(frozen=True)
    __test__: ClassVar[bool] = False  # or pytest takes the class for a test

    name: str
    passed: bool
    description: str


class WindowScores(MetricContainer):
    """Guardrail score per window: a metric and a test each, one plot and one table for all."""

    threshold: float
    _windows: Any = PrivateAttr(())

    def __init__(self, windows: Sequence[tuple[str, Scores]], threshold: float) -> None:
        """Take labelled windows in the order of time."""
        self.threshold = threshold
        super().__init__()
        object.__setattr__(self, "_windows", tuple(windows))

    def generate_metrics(self, context: Context) -> Sequence[Metric]:
        """One `GivenRate` a window, each with its test."""
        test = Limit(bound="value", relation="at least", limit=self.threshold)
        return [
            GivenRate(scores.guardrail_score, f"Window {label}", order=i, tests=[test])
            for i, (label, scores) in enumerate(self._windows)
        ]

    def render(self, context: Context, child_widgets: Any = None) -> list[BaseWidgetInfo]:
        """The plot and the table, in place of a card a window."""
        if not self._windows:
            return [text_widget(title="Windows", text="There are no windows yet.")]
        return [
            plotly_figure(title="Guardrail score per window", figure=_windows_figure(self._windows, self.threshold)),
            table_data(
                title="Windows",
                column_names=["Window", "Guardrail score", "Over-refusal", "Leak", "Unjudged", "Threshold"],
                data=[
                    (label, s.guardrail_score, s.over_refusal, s.leak, s.unjudged, self._standing(s.guardrail_score))
                    for label, s in self._windows
                ],
            ),
        ]

    def _standing(self, share: Rate) -> str:
        if share.n == 0:
            return "nothing judged"
        return f"under {self.threshold:g}" if share.value < self.threshold else f"at or over {self.threshold:g}"


def _windows_figure(windows: Sequence[tuple[str, Scores]], threshold: float) -> go.Figure:
    shares = [scores.guardrail_score for _, scores in windows]
    labels = [label for label, _ in windows]
    known = [share for share in shares if share.n]
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(windows))),
            y=[share.value if share.n else None for share in shares],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [share.high - share.value if share.n else 0 for share in shares],
                "arrayminus": [share.value - share.low if share.n else 0 for share in shares],
                "color": GREY,
            },
            mode="lines+markers",
            line={"color": GREY, "width": 1},
            marker={
                "size": 11,
                "color": [FAIL_COLOUR if share.value < threshold else PASS_COLOUR for share in shares],
            },
            hovertext=[f"{label}: {share}" for label, share in zip(labels, shares, strict=True)],
            hoverinfo="text",
        )
    )
    figure.add_hline(
        threshold,
        line={"color": FAIL_COLOUR, "dash": "dash"},
        annotation={"text": f"threshold {threshold:g}", "font": {"color": FAIL_COLOUR}},
    )
    floor = min([threshold, *(share.low for share in known)])
    figure.update_yaxes(title="guardrail score, 95 % interval", range=[max(0.0, floor - 0.05), 1.02])
    step = -(-len(windows) // MAX_TICKS)
    figure.update_xaxes(tickvals=list(range(len(windows)))[::step], ticktext=labels[::step])
    return figure


def monitoring_report(
    title: str,
    frame: pd.DataFrame,
    *,
    windows: Sequence[tuple[str, Scores]],
    threshold: float,
    corrected: Rate | None,
    out: Path,
) -> list[TestOutcome]:
    """Write the page on a model's traffic and test each window.

    Args:
        title: what the page is about; names the policy.
        frame: the judged traffic, as `verdict_frame` gives it.
        windows: label and scores of each window, in the order of time.
        threshold: least guardrail score of a window.
        corrected: guardrail score of all the traffic with the judge's error taken out; ``None`` where the judge has
            no card.
        out: the HTML file; written whole or not at all, its folder is made.

    Returns:
        One outcome a window: failed where the point estimate is under the threshold. A window without a judged record
        does not fail.
    """
    cards: list[Metric | MetricContainer] = [GuardrailScore(), OverRefusal(), Leak()]
    if corrected is not None:
        cards.insert(1, GivenRate(corrected, "Guardrail score, corrected"))
    report = Report([*cards, WindowScores(windows, threshold), UnjudgedRecords(), FailedRecords()])
    snapshot = report.run(dataset_of(frame, verdicts_of(frame)), None, name=title)
    outcomes = outcomes_of(snapshot)

    failed = sum(not outcome.passed for outcome in outcomes)
    unjudged = int((frame["verdict"] == "unjudged").sum())
    text = (
        f"Model version **{names_of(frame['model_version'])}**, judged by **{names_of(frame['judge_id'])}**: "
        f"{len(frame):,} records, {unjudged:,} unjudged{period_of(frame)}. "
        f"**{failed} of {len(outcomes)} windows under the threshold {threshold:g}.**"
    )
    if corrected is None:
        text += " The judge has no card, so the guardrail score is not corrected for its errors."
    write_page(title, [text_widget(title=title, text=text), *widgets_of(snapshot), *test_widgets_of(snapshot)], out=out)
    return outcomes


def outcomes_of(snapshot: Snapshot) -> list[TestOutcome]:
    """What the tests of a report found, in their order."""
    return [
        TestOutcome(name=t.name, passed=t.status in (TestStatus.SUCCESS, TestStatus.WARNING), description=t.description)
        for t in snapshot.tests_results
    ]
