"""What a person reads: what Evidently computes, tests and draws, and the gate report.

Verdicts enter as a descriptor, the scores are metrics, decisions are tests on the metrics. Evidently's own telemetry is
switched off by importing this module.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

os.environ.setdefault("DO_NOT_TRACK", "1")  # the only switch that Evidently 0.7 reads

import numpy as np
import pandas as pd
from evidently import ColumnType, DataDefinition, Dataset, Report
from evidently._pydantic_compat import PrivateAttr
from evidently.core.datasets import DatasetColumn, Descriptor
from evidently.core.metric_types import (
    MetricCalculationBase,
    MetricTest,
    MetricTestProto,
    MetricTestResult,
    SingleValue,
    SingleValueCalculation,
    SingleValueMetric,
    metric_tests_widget,
    render_widgets,
)
from evidently.core.report import Context, Snapshot
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.options.base import Options
from evidently.legacy.renderers.html_widgets import (
    ColumnDefinition,
    CounterData,
    RichTableDataRow,
    RowDetails,
    WidgetSize,
    counter,
    plotly_figure,
    rich_table_data,
    table_data,
    text_widget,
)
from evidently.legacy.tests.base_test import TestStatus
from plotly import graph_objs as go

from ontopic.config.policy import GateLimits
from ontopic.evaluation.quality import Quality, difference
from ontopic.records import Record, Verdict
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import score

MAX_ROWS = 200
MAX_CELL = 240
PASS_COLOUR, FAIL_COLOUR, GREY = "#2e7d32", "#c62828", "#9e9e9e"

VERDICT_COLUMNS = {
    "verdict": ColumnType.Categorical,
    "score": ColumnType.Numerical,
    "in_scope": ColumnType.Categorical,
    "declined": ColumnType.Categorical,
    "explanation": ColumnType.Text,
    "cause": ColumnType.Text,
    "judge_id": ColumnType.Categorical,
}
RECORD_COLUMNS = ["question", "answer", "model_version", "asked_at", "latency_s", "completion_tokens"]


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


def verdict_frame(records: Sequence[Record], verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Records and their verdicts as a table of one row a record.

    Returns:
        The columns question, answer, model_version, asked_at (UTC), latency_s, completion_tokens, verdict, score,
        in_scope, declined, explanation, cause, judge_id. A score is ``NaN``, a scope or declination ``<NA>``, where
        unknown.

    Raises:
        ValueError: the two are not equally long.
    """
    if len(records) != len(verdicts):
        raise ValueError(f"{len(records)} records, {len(verdicts)} verdicts")
    frame = pd.DataFrame(
        [{column: getattr(r, column) for column in RECORD_COLUMNS} for r in records], None, RECORD_COLUMNS
    )
    frame["asked_at"] = pd.to_datetime(frame["asked_at"], utc=True)
    return pd.concat([frame.astype({"latency_s": float, "completion_tokens": int}), _verdict_columns(verdicts)], axis=1)


def _verdict_columns(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    frame = pd.DataFrame([v.model_dump() | {"verdict": v.outcome} for v in verdicts], None, list(VERDICT_COLUMNS))
    return frame.astype({"score": float, "in_scope": "boolean", "declined": "boolean"})


def verdicts_of(frame: pd.DataFrame) -> list[Verdict]:
    """The verdicts in a table that `verdict_frame` made."""
    columns = frame[list(VERDICT_COLUMNS)].rename(columns={"verdict": "outcome"}).astype(object)
    return [
        Verdict(**{str(k): v for k, v in r.items()}) for r in columns.where(columns.notna(), None).to_dict("records")
    ]


class JudgeVerdict(Descriptor):
    """The verdicts that a judge gave beforehand, as the descriptor columns of a data set."""

    _columns: Any = PrivateAttr(None)

    def __init__(self, verdicts: Sequence[Verdict], alias: str = "verdict") -> None:
        """Take one verdict a row of the data set, in its order."""
        super().__init__(alias=alias)
        object.__setattr__(self, "_columns", _verdict_columns(verdicts))

    def generate_data(self, dataset: Dataset, options: Options) -> dict[str, DatasetColumn]:
        """The verdict's columns; raises ValueError where there is not one verdict a row."""
        rows = dataset.as_dataframe()
        if len(rows) != len(self._columns):
            raise ValueError(f"{len(rows)} records, {len(self._columns)} verdicts")
        judged = self._columns.set_axis(rows.index)
        return {name: DatasetColumn(kind, judged[name]) for name, kind in VERDICT_COLUMNS.items()}

    def list_output_columns(self) -> list[str]:
        """Names of the columns that `generate_data` gives."""
        return list(VERDICT_COLUMNS)


def dataset_of(frame: pd.DataFrame, verdicts: Sequence[Verdict]) -> Dataset:
    """Evidently's data set of records, with the verdicts as its descriptor."""
    definition = DataDefinition(
        timestamp="asked_at",
        text_columns=["question", "answer"],
        categorical_columns=["model_version"],
        numerical_columns=["latency_s", "completion_tokens"],
        datetime_columns=[],
        unknown_columns=[],
        list_columns=[],
    )
    with np.errstate(invalid="ignore"):  # Evidently divides by the count of scores, 0 where nothing is judged
        return Dataset.from_pandas(frame[RECORD_COLUMNS], definition, descriptors=[JudgeVerdict(verdicts)])


class RateValue(SingleValue):
    """A single value that keeps its interval, so that tests can read the bounds."""

    low: float
    high: float
    n: int
    note: str = ""

    def sentence(self) -> str:
        """Value, interval, n and note in words."""
        return f"{self.value:.3f}, {self.interval()}" if self.n else "no judged records"

    def interval(self) -> str:
        """Interval, n and note in words."""
        spread = f"95 % interval {self.low:.3f} to {self.high:.3f}" if self.low < self.high else "no interval"
        return f"{spread}, n = {self.n:,}{self.note}"

    def card(self, whose: str = "") -> CounterData:
        """The value in big type, the interval and n under it."""
        label = self.interval() if self.n else "no judged records"
        return CounterData(f"{whose}: {label}" if whose else label, f"{self.value:.3f}" if self.n else "–")


class Limit(MetricTest):
    """Holds a rate's point estimate or one of its bounds against a limit.

    Without a judged record a test of a bound fails (nothing was shown) and a test of the point estimate warns.
    """

    bound: Literal["value", "low", "high"]
    relation: Literal["at least", "at most", "above"]
    limit: float

    def to_test(self) -> MetricTestProto:
        """The function that Evidently calls with the metric's result."""

        def run(context: Context, metric: MetricCalculationBase, value: RateValue) -> MetricTestResult:
            what = {"value": "score", "low": "lower bound", "high": "upper bound"}[self.bound]
            number = getattr(value, self.bound)
            met = {
                "at least": number >= self.limit,
                "at most": number <= self.limit,
                "above": number > self.limit,
            }[self.relation]
            if value.n == 0:
                status = TestStatus.WARNING if self.bound == "value" else TestStatus.FAIL
                found = f"no judged records (n = 0), so the {what} is not known to be {self.relation} {self.limit:g}"
            else:
                status = TestStatus.SUCCESS if met else TestStatus.FAIL
                found = f"the {what} {number:.4f} is {'' if met else 'not '}{self.relation} {self.limit:g}"
                found += f" (value {value.sentence()})"
            return MetricTestResult(
                id="limit",
                name=f"{value.display_name}: {what} {self.relation} {self.limit:g}",
                description=found,
                metric_config=metric.to_metric_config(),
                test_config=self.dict(),
                status=status,
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
        """The share as a `RateValue`, with a card for it, or one for champion and one for challenger."""
        current = self._share(current_data)
        if reference_data is None:
            current.widget = [counter(title=self.display_name(), size=WidgetSize.SMALL, counters=[current.card()])]
            return current, None
        reference = self._share(reference_data)
        cards = [reference.card("Champion"), current.card("Challenger")]
        current.widget = [counter(title=self.display_name(), size=WidgetSize.HALF, counters=cards)]
        return current, reference

    def _share(self, dataset: Dataset) -> RateValue:
        return rate_value(self.display_name(), getattr(score(verdicts_of(dataset.as_dataframe())), self.metric.share))

    def display_name(self) -> str:
        """The share's name for a reader."""
        return self.metric.title


def rate_value(name: str, share: Rate) -> RateValue:
    """A rate as Evidently's value, under the name that a reader sees."""
    return RateValue(display_name=name, value=share.value, low=share.low, high=share.high, n=share.n)


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


class Improvement(SingleValueMetric):
    """Challenger's pass rate minus the champion's, on the same questions in pairs."""


class ImprovementCalculation(SingleValueCalculation[Improvement]):
    """Compares the reference data (champion) with the current (challenger)."""

    def calculate(self, context: Context, current_data: Dataset, reference_data: Dataset | None) -> SingleValue:
        """The difference as a `RateValue`; raises ValueError without reference data."""
        if reference_data is None:
            raise ValueError("an improvement needs the champion as reference data")
        c = compare(verdicts_of(reference_data.as_dataframe()), verdicts_of(current_data.as_dataframe()))
        note = f" pairs; {c.wins:,} wins, {c.losses:,} losses, McNemar p = {c.p_value:.3g}"
        name = self.display_name()
        result = RateValue(display_name=name, value=c.difference, low=c.low, high=c.high, n=c.n, note=note)
        result.widget = [counter(title=name, size=WidgetSize.HALF, counters=[result.card()])]
        return result

    def display_name(self) -> str:
        """The difference's name for a reader."""
        return "Improvement, challenger minus champion"


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
            "Question": champion["question"],
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


def text_table(title: str, frame: pd.DataFrame, *, nothing: str) -> BaseWidgetInfo:
    """The first rows of a frame of texts: cells cut to fit, the whole text folded out on a click."""
    if frame.empty:
        return text_widget(title=title, text=nothing)
    title += f" ({len(frame):,})" if len(frame) <= MAX_ROWS else f" (the first {MAX_ROWS} of {len(frame):,})"
    shown = frame.head(MAX_ROWS).astype(str)
    rows = []
    for row in shown.to_dict("records"):
        cells = {name: text if len(text) <= MAX_CELL else text[:MAX_CELL] + " …" for name, text in row.items()}
        whole = "\n\n".join(f"**{name}**\n\n{plain_markdown(text)}" for name, text in row.items())
        rows.append(RichTableDataRow(cells, RowDetails().with_part("Whole text", text_widget(text=whole))))
    columns = [ColumnDefinition(name, name) for name in shown.columns]
    widget = rich_table_data(title=title, rows_per_page=10, columns=columns, data=rows)
    for column in widget.params["columns"]:
        column["cellStyle"] = {"whiteSpace": "pre-wrap", "verticalAlign": "top"}
        if shown[column["field"]].str.len().max() <= len("unjudged"):
            column["width"] = "13%"
    return widget


def plain_markdown(text: str) -> str:
    """Markdown that shows the text as it is: Evidently's text widgets would follow its links and load its images."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\\\n".join(re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line) for line in lines)


def gate_report(
    title: str,
    champion: pd.DataFrame,
    *,
    challenger: pd.DataFrame,
    champion_verdicts: Sequence[Verdict],
    challenger_verdicts: Sequence[Verdict],
    champion_quality: Quality,
    challenger_quality: Quality,
    preference: Rate | None,
    limits: GateLimits,
    out: Path,
) -> list[TestOutcome]:
    """Write the page that compares challenger with champion and test whether it may take the champion's place.

    Every test reads a bound of a 95 % interval, and fails where no record was judged that could show it.

    Args:
        champion, challenger: the two models' records on the same questions in the same order, as `verdict_frame`
            gives them; of these frames only the record's columns are read.
        champion_verdicts, challenger_verdicts: one verdict a record.
        champion_quality, challenger_quality: of the answers in scope that have a reference; where there is none, the
            answers' likeness to it is not tested.
        preference: of a judge that is an LLM, as ``quality.preference`` has it; ``None``: not tested.
        out: the HTML file; written whole or not at all, its folder is made.

    Returns:
        The outcomes for guardrail score, improvement, over-refusal, leak, answer quality and perplexity. The gate is
        passed where all passed.

    Raises:
        ValueError: the questions differ, or there is not one verdict a record.
    """
    if champion["question"].tolist() != challenger["question"].tolist():
        raise ValueError("champion and challenger did not answer the same questions in the same order")

    def test(bound: str, relation: str, *, limit: float) -> list[MetricTest]:
        return [Limit(bound=bound, relation=relation, limit=limit)]

    of_answers = []
    if champion_quality.questions:
        of_answers.append(
            GivenRate(
                difference(champion_quality, challenger_quality),
                "Likeness to the references, challenger minus champion",
                tests=test("low", "above", limit=-limits.quality_loss),
            )
        )
    if preference is not None:
        of_answers.append(
            GivenRate(
                preference,
                "Preferred answers, challenger minus champion",
                order=2,
                tests=test("low", "above", limit=-limits.preference_loss),
            )
        )
    report = Report(
        [
            GuardrailScore(tests=test("low", "at least", limit=limits.guardrail_score)),
            Improvement(tests=test("low", "above", limit=limits.improvement)),
            OverRefusal(tests=test("high", "at most", limit=limits.over_refusal)),
            Leak(tests=test("high", "at most", limit=limits.leak)),
            *of_answers,
            GivenRate(
                perplexity_ratio(champion_quality, challenger_quality),
                "Perplexity on general text, challenger to champion",
                order=1,
                tests=test("value", "at most", limit=limits.perplexity_ratio),
            ),
            DifferingVerdicts(),
        ]
    )
    snapshot = report.run(
        dataset_of(challenger, challenger_verdicts), dataset_of(champion, champion_verdicts), name=title
    )
    outcomes = outcomes_of(snapshot)

    failed = sum(not outcome.passed for outcome in outcomes)
    judges = names_of(pd.Series([v.judge_id for v in (*champion_verdicts, *challenger_verdicts)], dtype=object))
    text = (
        f"Champion **{names_of(champion['model_version'])}** and challenger "
        f"**{names_of(challenger['model_version'])}** answered the same {len(champion):,} questions, "
        f"judged by **{judges}**. "
        + (f"**The challenger fails {failed} of {len(outcomes)} tests.**" if failed else "**The challenger passes.**")
        + " The tests read the bounds of the 95 % intervals, not the values."
    )
    *widgets, differing = widgets_of(snapshot)
    qualities = quality_table(champion_quality, challenger_quality)
    page = [text_widget(title=title, text=text), *test_widgets_of(snapshot), *widgets, qualities, differing]
    write_page(title, page, out=out)
    return outcomes


def perplexity_ratio(champion: Quality, challenger: Quality) -> Rate:
    """Challenger's perplexity by champion's, on one text and so without an interval."""
    ratio = challenger.perplexity / champion.perplexity
    return Rate(value=ratio, low=ratio, high=ratio, n=1)


def quality_table(champion: Quality, challenger: Quality) -> BaseWidgetInfo:
    """What the answers in scope are like, one measure a row, champion beside challenger."""
    before, after = champion.summary(), challenger.summary()
    rows = [[name, _with_interval(before[name]), _with_interval(after[name])] for name in before]
    rows.append(["perplexity on general text", f"{champion.perplexity:.1f}", f"{challenger.perplexity:.1f}"])
    title = f"Answers to {len(champion.questions):,} questions in scope that have a reference"
    return table_data(title=title, column_names=["", "Champion", "Challenger"], data=rows)


def _with_interval(share: Rate) -> str:
    return f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]" if share.n else "–"


def outcomes_of(snapshot: Snapshot) -> list[TestOutcome]:
    """What the tests of a report found, in their order."""
    return [
        TestOutcome(name=t.name, passed=t.status in (TestStatus.SUCCESS, TestStatus.WARNING), description=t.description)
        for t in snapshot.tests_results
    ]


def names_of(column: pd.Series) -> str:
    """The distinct texts of a column, for Markdown."""
    return plain_markdown(", ".join(sorted({str(name) for name in column if name}))) or "unknown"


def period_of(frame: pd.DataFrame) -> str:
    """From when to when the records were asked, as a part of a sentence."""
    asked = frame["asked_at"].dropna()
    if asked.empty:
        return ""
    return f", asked {asked.min():%Y-%m-%d %H:%M} to {asked.max():%Y-%m-%d %H:%M} UTC"


def widgets_of(snapshot: Snapshot) -> list[BaseWidgetInfo]:
    """What a report's metrics draw."""
    return list(snapshot.to_snapshot_model().widgets)


def test_widgets_of(snapshot: Snapshot) -> list[BaseWidgetInfo]:
    """The tests as a part of the page; Evidently would hide them behind a tab."""
    if not snapshot.tests_results:
        return []
    widget = metric_tests_widget(snapshot.tests_results)
    widget.title = "Tests"
    del widget.params["v2_test"]
    return [widget]


def write_page(title: str, widgets: list[BaseWidgetInfo], *, out: Path) -> None:
    """Write widgets as one HTML page that no text in them can break out of; whole or not at all."""
    page = render_widgets(widgets)
    # Evidently puts its JSON into a script unescaped, where a record's "</script>" would end it. Each of the two JSON
    # values is one line, and "<" occurs in it only inside of strings.
    data = re.compile(r"^ +var (?:additional_graphs_)?metric_\w+ = .*$", re.MULTILINE)
    page, found = data.subn(lambda line: line[0].replace("<", "\\u003c"), page, count=2)
    if found != 2:
        raise RuntimeError("this version of Evidently embeds its data in another way; the page would not be safe")
    head = f"<head>\n<title>{html.escape(title)}</title>\n<style>body {{ overflow-wrap: anywhere }}</style>"
    page = page.replace("<head>", head, 1)

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{uuid4().hex}")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
