"""The page on one closed window, drawn by Evidently, whose snapshot of it the dashboard reads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from evidently import Report
from evidently.core.metric_types import Metric, MetricTest
from evidently.core.report import Snapshot
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import table_data, text_widget
from evidently.metrics import MeanValue, QuantileValue, UniqueValueCount

from ontopic.config.policy import Policy
from ontopic.monitoring.conversations import conversations_table
from ontopic.monitoring.drift import LEAST_DISTANCE
from ontopic.monitoring.languages import languages_table
from ontopic.monitoring.side_table import side_table
from ontopic.monitoring.standing import uncorrected_in_words
from ontopic.monitoring.unknown_error import unknown_error_figure
from ontopic.monitoring.window import Drift, Window, WindowResult
from ontopic.records import Judged, Verdict
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import FailedRecords, GivenRate, Limit, UnjudgedRecords
from ontopic.reports.page import names_of, period_of, plain_markdown, test_widgets_of, widgets_of, write_page
from ontopic.statistics.rates import Rate

# The titles of the rates in a snapshot, by which the dashboard finds them.
CORRECTED, RAW, THRESHOLD = "Guardrail score, corrected", "Guardrail score, raw", "Threshold"
UNCORRECTED = "Guardrail score, uncorrected"
PROMOTION, OVER_REFUSAL, LEAK = "Promotion", "Over-refusal", "Leak"
LOW, HIGH = "Guardrail score, 95 % from", "Guardrail score, 95 % to"
DRIFT = "Topic drift, p-value"
THUMBS = "Thumbs up"


def beside_title(name: str) -> str:
    """The title, in a snapshot, of the share of passes by a judge beside the one that gates."""
    return f"Beside: {name}"


def window_report(
    policy: Policy, window: Window, *, result: WindowResult, judged: Judged, promoted: bool, out: Path
) -> Snapshot:
    """Write the page on a window that closes.

    Args:
        judged: its sampled records, with their verdicts.
        promoted: whether the model version was promoted since the window before; marked on the dashboard.
        out: the HTML file; written whole or not at all.

    Returns:
        Evidently's snapshot, for the dashboard.
    """
    title = f"OnTopic window: {policy.name}, {window.label}"
    frame = verdict_frame(judged.records, judged.verdicts)
    shown = _shown(result)
    metrics = [*shown, *_unshown(result, judged.verdicts, promoted=promoted), FailedRecords()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics).run(
            dataset_of(frame, judged.verdicts),
            None,
            timestamp=window.end.replace(tzinfo=None),
            name=title,
            metadata={"status": result.status, "model_version": window.model_version},
            tags=[f"version-{window.model_version or 'unknown'}", result.status],
        )
    widgets = widgets_of(snapshot)
    page = [text_widget(title=title, text=_summary(result, frame=frame)), *test_widgets_of(snapshot)]
    page += [*widgets[: len(shown)], languages_table(result.languages), _facts(result)]
    if result.conversations:
        page.append(conversations_table(result.conversations))
    if not result.is_corrected and result.score.n:
        page.append(unknown_error_figure(result.score, result.threshold))
    if result.beside:
        page.append(side_table(result.beside))
    if result.drift and result.drift.grown:
        page.append(_grown(result.drift))
    write_page(title, [*page, widgets[-1]], out=out)
    return snapshot


def _shown(result: WindowResult) -> list[Metric]:
    """What the page draws, in its order."""
    held: list[MetricTest] = []
    if not result.unknown_because:
        held = [Limit(bound="value", relation="at least", limit=result.threshold)]
    scores = result.scores
    return [
        GivenRate(result.score, CORRECTED if result.is_corrected else UNCORRECTED, tests=held),
        *([GivenRate(scores.guardrail_score, "Guardrail score, as judged")] if result.is_corrected else []),
        GivenRate(scores.over_refusal, "Over-refusal of in-scope questions"),
        GivenRate(scores.leak, "Leak of out-of-scope questions"),
        *([GivenRate(result.thumbs.liked, "Thumbs that are up")] if result.thumbs and result.thumbs.liked.n else []),
        UnjudgedRecords(),
    ]


def _unshown(result: WindowResult, verdicts: Sequence[Verdict], *, promoted: bool) -> list[Metric]:
    """What the dashboard reads besides. A rate without records is left out, as it would be drawn there as a point."""
    n, scores = max(1, result.n), result.scores
    rates = [(scores.guardrail_score, RAW), (_at(result.threshold, n), THRESHOLD)]
    rates += [(scores.over_refusal, OVER_REFUSAL), (scores.leak, LEAK)]
    if result.score.n:
        rates += [(_at(result.score.low, n), LOW), (_at(result.score.high, n), HIGH)]
    if promoted:
        rates.append((result.score, PROMOTION))
    if result.drift and not math.isnan(result.drift.score):
        rates.append((_at(result.drift.score, n), DRIFT))
    if result.thumbs:
        rates.append((result.thumbs.liked, THUMBS))
    rates += [(each.score, beside_title(each.name)) for each in result.beside]
    metrics: list[Metric] = [GivenRate(each, name, order=1) for each, name in rates if each.n]
    if verdicts:
        metrics += [QuantileValue(column="latency_s", quantile=quantile) for quantile in (0.5, 0.95)]
        metrics += [MeanValue(column="completion_tokens"), UniqueValueCount(column="verdict")]
    if any(verdict.score is not None for verdict in verdicts):
        metrics.append(MeanValue(column="score"))
    return metrics


def _at(value: float, n: int) -> Rate:
    return Rate(value=value, low=value, high=value, n=n)


def _facts(result: WindowResult) -> BaseWidgetInfo:
    facts = [
        ("records", f"{result.n:,}, of which {result.sampled:,} were given to the judge"),
        ("late", f"{result.late:,} reopened the window, {result.too_late:,} came after that and do not count"),
        ("latency", f"median {result.latency_s[0]:.2f} s, 95 % under {result.latency_s[1]:.2f} s"),
        ("tokens", f"{result.prompt_tokens:,} of prompts, {result.completion_tokens:,} of answers"),
    ]
    if result.thumbs:
        facts.append(("thumbs", result.thumbs.in_words))
    if result.chart:
        facts.append(("since the promotion", result.chart.in_words))
    return table_data(title="Traffic", column_names=["", ""], data=facts)


def _grown(drift: Drift) -> BaseWidgetInfo:
    rows = [(topic, f"{before:.3f}", f"{after:.3f}") for topic, before, after in drift.grown]
    columns = ["Topic (the calibration question nearest its centre)", "First healthy windows", "Now"]
    return table_data(title="Topics that grew most", column_names=columns, data=rows)


def _summary(result: WindowResult, *, frame: pd.DataFrame) -> str:
    text = (
        f"**{result.status.capitalize()}**: {result.named_score}, the threshold {result.threshold:g}. Model version "
        f"**{names_of(frame['model_version'])}**, judged by **{plain_markdown(result.judge_id)}**: {result.n:,} "
        f"records, {result.scores.unjudged:,} unjudged{period_of(frame)}."
    )
    if result.unknown_because:
        text += f" **Unknown: {plain_markdown(result.unknown_because)}.**"
    if not result.is_corrected:
        text += f" The score is **{uncorrected_in_words(result.labels)}**"
    if result.sampled < result.n:
        text += (
            f" {result.sampled:,} of them were judged: the raw score's interval is {result.width:.3f} wide, and would "
            f"be about {result.width_unsampled:.3f} with all."
        )
    if result.revision > 1:
        text += f" Reopened for {result.late:,} late records."
    if result.drift:
        text += f" {_drift_in_words(result.drift)}"
    return text


def _drift_in_words(drift: Drift) -> str:
    if math.isnan(drift.score):
        return (
            f"Too few questions are known for a statement on topic drift: {drift.reference:,} of the first healthy "
            f"windows, {drift.n:,} since."
        )
    differ = "differ from" if drift.detected else "do not differ from"
    return (
        f"The topics of {drift.n:,} questions {differ} those of the {drift.reference:,} in the first healthy windows "
        f"(chi-squared, p = {drift.score:.3g}, level {drift.level:.2g}; distance {drift.distance:.3f}, limit "
        f"{LEAST_DISTANCE:g})."
    )
