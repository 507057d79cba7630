"""The page on one closed window, and the dashboard of a policy in Evidently's workspace."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import uuid5

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import Metric
from evidently.core.report import Snapshot
from evidently.legacy.renderers.html_widgets import table_data, text_widget
from evidently.metrics import MeanValue, QuantileValue, UniqueValueCount, ValueDrift
from evidently.sdk.models import DashboardPanelPlot, PanelMetric
from evidently.sdk.panels import bar_plot_panel, counter_panel, line_plot_panel, text_panel
from evidently.ui.workspace import Project, Workspace

from ontopic.config.policy import Policy
from ontopic.monitoring.topics import Topics
from ontopic.monitoring.windows import Drift, Window, WindowResult
from ontopic.reports.metrics import (
    FailedRecords,
    GivenRate,
    GuardrailScore,
    Leak,
    Limit,
    OverRefusal,
    UnjudgedRecords,
)
from ontopic.reports.page import names_of, period_of, plain_markdown, test_widgets_of, widgets_of, write_page
from ontopic.reports.verdict_frame import dataset_of, verdicts_of
from ontopic.statistics.rates import Rate

DRIFT_P = 0.01
_CORRECTED, _RAW, _THRESHOLD = "Guardrail score, corrected", "Guardrail score, raw", "Threshold"
_PROMOTION, _OVER_REFUSAL, _LEAK = "Promotion", "Over-refusal", "Leak"
_DRIFT = "Topic drift, p-value"
_GROWN = 3
_ROWS = 12


def topic_drift(questions: Sequence[str], topics: Topics) -> Drift | None:
    """Whether the questions' topics differ from the calibration set's: Evidently's chi-squared drift at 1 %.

    Returns:
        ``None`` where there is no question.
    """
    if not questions:
        return None
    found = topics.of(questions)
    snapshot = _drift_report(found, topics.reference)
    (value,) = [result.value for result in snapshot.metric_results.values()]
    before, after = Counter(topics.reference), Counter(found)
    shares = [(topic, before[topic] / len(topics.reference), after[topic] / len(found)) for topic in before]
    grown = sorted(shares, key=lambda row: row[1] - row[2])[:_GROWN]
    return Drift(score=float(value), detected=float(value) < DRIFT_P, grown=grown)


def _drift_report(topics: Sequence[str], reference: Sequence[str]) -> Snapshot:
    definition = DataDefinition(categorical_columns=["topic"])
    current, before = (
        Dataset.from_pandas(pd.DataFrame({"topic": list(column)}), definition) for column in (topics, reference)
    )
    report = Report([ValueDrift(column="topic", method="chisquare", threshold=DRIFT_P)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return report.run(current, before)


def window_report(
    policy: Policy, window: Window, *, result: WindowResult, frame: pd.DataFrame, promoted: bool, out: Path
) -> Snapshot:
    """Write the page on a window that closes.

    Args:
        frame: the judged records, as ``reports.verdict_frame`` gives it.
        promoted: whether the model version was promoted since the window before; marked on the dashboard.
        out: the HTML file; written whole or not at all.

    Returns:
        Evidently's snapshot, for the dashboard.
    """
    title = f"OnTopic window: {policy.name}, {window.label}"
    suspicion = [
        Limit(bound="value", relation="at least", limit=result.threshold),
        Limit(bound="high", relation="at least", limit=result.threshold),
    ]
    verdicts = verdicts_of(frame)
    metrics: list[Metric] = [
        GuardrailScore(),
        GivenRate(result.corrected, _CORRECTED, tests=suspicion),
        OverRefusal(),
        Leak(),
        UnjudgedRecords(),
    ]
    shown = len(metrics)
    # Read by the dashboard and not drawn on this page.
    limit = Rate(value=result.threshold, low=result.threshold, high=result.threshold, n=max(1, result.n))
    rates = [(result.scores.guardrail_score, _RAW), (limit, _THRESHOLD)]
    rates += [(result.scores.over_refusal, _OVER_REFUSAL), (result.scores.leak, _LEAK)]
    if promoted:
        rates.append((result.corrected, _PROMOTION))
    if result.drift:
        rates.append(
            (Rate(value=result.drift.score, low=result.drift.score, high=result.drift.score, n=result.n), _DRIFT)
        )
    metrics += [GivenRate(each, name, order=1) for each, name in rates if each.n]
    if verdicts:
        metrics += [QuantileValue(column="latency_s", quantile=quantile) for quantile in (0.5, 0.95)]
        metrics += [MeanValue(column="completion_tokens"), UniqueValueCount(column="verdict")]
    if any(verdict.score is not None for verdict in verdicts):
        metrics.append(MeanValue(column="score"))
    metrics.append(FailedRecords())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report(metrics).run(
            dataset_of(frame, verdicts),
            None,
            timestamp=window.end.replace(tzinfo=None),
            name=title,
            metadata={"status": result.status, "model_version": window.model_version},
            tags=[f"version-{window.model_version or 'unknown'}", result.status],
        )
    widgets = widgets_of(snapshot)
    page = [text_widget(title=title, text=_summary(window, result, frame=frame)), *test_widgets_of(snapshot)]
    page += widgets[:shown]
    facts = [
        ("records", f"{result.n:,}, of which {result.sampled:,} were given to the judge"),
        ("late", f"{result.late:,} reopened the window, {result.too_late:,} came after that and do not count"),
        ("latency", f"median {result.latency_s[0]:.2f} s, 95 % under {result.latency_s[1]:.2f} s"),
        ("tokens", f"{result.prompt_tokens:,} of prompts, {result.completion_tokens:,} of answers"),
    ]
    page.append(table_data(title="Traffic", column_names=["", ""], data=facts))
    if result.drift:
        rows = [(topic, f"{before:.3f}", f"{after:.3f}") for topic, before, after in result.drift.grown]
        columns = ["Topic (the calibration question nearest its centre)", "Calibration", "Window"]
        page.append(table_data(title="Topics that grew most", column_names=columns, data=rows))
    write_page(title, [*page, widgets[-1]], out=out)
    return snapshot


def _summary(window: Window, result: WindowResult, *, frame: pd.DataFrame) -> str:
    score = result.corrected
    text = (
        f"**{result.status.capitalize()}**: the corrected guardrail score is {score}, the threshold "
        f"{result.threshold:g}. Model version **{names_of(frame['model_version'])}**, judged by "
        f"**{plain_markdown(result.judge_id)}**: {result.n:,} records, {result.scores.unjudged:,} unjudged"
        f"{period_of(frame)}."
    )
    if result.sampled < result.n:
        text += (
            f" {result.sampled:,} of them were judged: the raw score's interval is {result.width:.3f} wide, and would "
            f"be about {result.width_unsampled:.3f} with all."
        )
    if result.revision > 1:
        text += f" Reopened for {result.late:,} late records."
    if result.drift:
        differ = "differ from" if result.drift.detected else "do not differ from"
        text += f" The questions' topics {differ} the calibration set's (chi-squared, p = {result.drift.score:.3g})."
    return text


class Dashboard:
    """One policy's dashboard in an Evidently workspace: ``python run.py ui --monitoring`` shows it.

    Args:
        folder: of the workspace; made where missing.
    """

    def __init__(self, folder: Path, policy: Policy) -> None:
        self._workspace = Workspace.create(str(folder))
        self._policy = policy
        found = self._workspace.search_project(policy.registered_model)
        self._project: Project = found[0] if found else self._workspace.create_project(policy.registered_model)

    def add(self, snapshot: Snapshot, window: Window) -> None:
        """Add a window's snapshot, in place of its earlier revision."""
        snapshot_id = uuid5(self._project.id, str(window.id))
        self._workspace.state.write_snapshot(self._project.id, snapshot_id, snapshot.to_snapshot_model())

    def show(self, windows: Sequence[Window], promoted_at: datetime | None) -> None:
        """Draw the panels anew.

        Args:
            windows: that were closed, in the order of time.
        """
        dashboard = self._project.dashboard
        if dashboard.model().tabs:
            dashboard.clear_dashboard()
        for panel in _panels(self._policy, windows, promoted_at=promoted_at):
            dashboard.add_panel(panel, tab="Monitoring")


def _panels(policy: Policy, windows: Sequence[Window], *, promoted_at: datetime | None) -> list[DashboardPanelPlot]:
    def given(title: str) -> PanelMetric:
        return PanelMetric(legend=title, metric="GivenRate", metric_labels={"title": title})

    latest = windows[-1] if windows else None
    said = "There is no closed window yet."
    if latest and latest.result:
        said = f"{latest.label}: {latest.result.status}. Corrected guardrail score {latest.result.corrected}."
        said += f" Threshold {policy.alert_threshold:g}."
    since = f" Champion since {promoted_at:%Y-%m-%d %H:%M} UTC." if promoted_at else ""
    panels = [
        text_panel(title="Latest window", description=said + since),
        counter_panel(
            title="Average score",
            values=[PanelMetric(legend="of the judge", metric="MeanValue", metric_labels={"column": "score"})],
            size="half",
            aggregation="last",
        ),
        counter_panel(title="Guardrail score", values=[given(_CORRECTED), given(_RAW)], size="half"),
        line_plot_panel(
            title="Guardrail score by window",
            values=[given(_CORRECTED), given(_RAW), given(_THRESHOLD), given(_PROMOTION)],
        ),
        bar_plot_panel(
            title="Verdicts by window",
            values=[
                PanelMetric(
                    legend=outcome,
                    metric="UniqueValueCount",
                    metric_labels={"column": "verdict", "value_type": "count", "label": outcome},
                )
                for outcome in ("pass", "fail", "unjudged")
            ],
            size="half",
            stacked=True,
        ),
        line_plot_panel(title="Over-refusal and leak", values=[given(_OVER_REFUSAL), given(_LEAK)], size="half"),
        line_plot_panel(title=f"{_DRIFT} (drift under {DRIFT_P:g})", values=[given(_DRIFT)], size="half"),
        line_plot_panel(
            title="Latency, seconds (median and 95 %)",
            values=[
                PanelMetric(
                    legend=name, metric="QuantileValue", metric_labels={"column": "latency_s", "quantile": quantile}
                )
                for name, quantile in (("median", "0.5"), ("95 %", "0.95"))
            ],
            size="half",
        ),
    ]
    for window in reversed(windows[-_ROWS:]):
        if window.result:
            panels.append(text_panel(title=window.label, description=_row(window.result)))
    return panels


def _row(result: WindowResult) -> str:
    return (
        f"{result.status}; corrected {result.corrected}; raw {result.scores.guardrail_score}; over-refusal "
        f"{result.scores.over_refusal}; leak {result.scores.leak}; {result.scores.unjudged} unjudged"
    )
