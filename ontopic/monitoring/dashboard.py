"""The dashboard of a policy in Evidently's workspace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import uuid5

from evidently.core.report import Snapshot
from evidently.sdk.models import DashboardPanelPlot, PanelMetric
from evidently.sdk.panels import bar_plot_panel, counter_panel, line_plot_panel, text_panel
from evidently.ui.workspace import Project, Workspace

from ontopic.config.policy import Policy
from ontopic.monitoring.window import Window, WindowResult
from ontopic.monitoring.window_snapshot import (
    CORRECTED,
    DRIFT,
    HIGH,
    LEAK,
    LOW,
    OVER_REFUSAL,
    PROMOTION,
    RAW,
    THRESHOLD,
    THUMBS,
    beside_title,
)
from ontopic.visible import visible

_ROWS = 12


class Dashboard:
    """One policy's dashboard in an Evidently workspace: ``python run.py ui`` shows it.

    Evidently's own page draws it: it has no tables, no bands, and colours and curves of its own.

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
        newest = [window for window in reversed(windows[-_ROWS:]) if window.result]
        rows = [text_panel(title=w.label, description=_row(w.result)) for w in newest if w.result]
        panels = [
            _latest(self._policy, windows, promoted_at=promoted_at),
            *_panels(),
            *_drift(windows),
            *_thumbs(windows),
            *_beside(windows),
            *rows,
        ]
        for panel in panels:
            dashboard.add_panel(panel, tab="Monitoring")


def _latest(policy: Policy, windows: Sequence[Window], *, promoted_at: datetime | None) -> DashboardPanelPlot:
    latest = windows[-1] if windows else None
    text = "There is no closed window yet."
    if latest and latest.result:
        of = f"version {visible(latest.model_version) or 'unknown'}, {latest.start:%Y-%m-%d %H:%M:%S} UTC"
        text = f"{of}: {latest.result.status}. {latest.result.named_score.capitalize()}."
        text += f" Threshold {policy.alert_threshold:g}."
    since = f" Champion since {promoted_at:%Y-%m-%d %H:%M} UTC." if promoted_at else ""
    return text_panel(title="Latest window", description=text + since)


def _given(title: str) -> PanelMetric:
    return PanelMetric(legend=title, metric="GivenRate", metric_labels={"title": title})


def _panels() -> list[DashboardPanelPlot]:
    outcomes = [
        PanelMetric(
            legend=outcome,
            metric="UniqueValueCount",
            metric_labels={"column": "verdict", "value_type": "count", "label": outcome},
        )
        for outcome in ("pass", "fail", "unjudged")
    ]
    latencies = [
        PanelMetric(legend=name, metric="QuantileValue", metric_labels={"column": "latency_s", "quantile": quantile})
        for name, quantile in (("median", "0.5"), ("95 %", "0.95"))
    ]
    return [
        counter_panel(title="Guardrail score", values=[_given(CORRECTED), _given(RAW)], size="half"),
        counter_panel(title="Over-refusal and leak", values=[_given(OVER_REFUSAL), _given(LEAK)], size="half"),
        line_plot_panel(
            title="Guardrail score by window, with its 95 % interval",
            values=[_given(each) for each in (CORRECTED, RAW, LOW, HIGH, THRESHOLD, PROMOTION)],
        ),
        bar_plot_panel(title="Verdicts by window", values=outcomes, size="half", stacked=True),
        line_plot_panel(title="Over-refusal and leak", values=[_given(OVER_REFUSAL), _given(LEAK)], size="half"),
        line_plot_panel(title="Latency, seconds (median and 95 %)", values=latencies, size="half"),
    ]


def _drift(windows: Sequence[Window]) -> list[DashboardPanelPlot]:
    """Whether other things are asked, where enough questions are known to say it."""
    known = [window.result.drift for window in windows if window.result and window.result.drift]
    if all(math.isnan(drift.score) for drift in known):
        return []
    return [line_plot_panel(title=f"{DRIFT} (the level is on each window's page)", values=[_given(DRIFT)], size="half")]


def _thumbs(windows: Sequence[Window]) -> list[DashboardPanelPlot]:
    """What people thought of the answers, where they said it."""
    if not any(window.result and window.result.thumbs for window in windows):
        return []
    return [line_plot_panel(title="Thumbs: share that is up", values=[_given(THUMBS)], size="half")]


def _beside(windows: Sequence[Window]) -> list[DashboardPanelPlot]:
    """The judges beside the one that gates, where there are some."""
    names = dict.fromkeys(each.name for window in windows if window.result for each in window.result.beside)
    if not names:
        return []
    values = [_given(beside_title(name)) for name in names]
    return [line_plot_panel(title="Judges beside the one that gates: share that passes", values=values)]


def _row(result: WindowResult) -> str:
    return (
        f"{result.status}; {result.named_score}; raw {result.scores.guardrail_score}; over-refusal "
        f"{result.scores.over_refusal}; leak {result.scores.leak}; {result.scores.unjudged} unjudged"
    )
