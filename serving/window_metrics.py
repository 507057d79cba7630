"""What the windows that `watch` keeps say of the versions that are served, for Prometheus, read when the page is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ontopic.config.alert_settings import OF_THE_LOOP, AlertEvent, Severity
from ontopic.config.policy import OF_POLICY
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.concerns import concerns
from ontopic.monitoring.window import Status, Window, WindowResult
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Outcome
from ontopic.state.workspace import is_there
from ontopic.statistics.rates import Rate

_MOST_ALERTS = 1000
_EVENTS = [each for each in get_args(AlertEvent) if each not in (*OF_THE_LOOP, "errors")]


class WindowMetrics(Collector):
    """The newest closed window of each version that is served, what was judged, what that cost, and open alerts.

    Args:
        at: path of the windows, with the alerts beside it, or URL of the database with both.
        versions: of the registry or of the server behind: no label can hold what a client sends.
    """

    def __init__(self, at: str, registered_model: str, *, versions: Sequence[str]) -> None:
        self._at, self._registered_model, self._versions = at, registered_model, versions

    def collect(self) -> Iterator[Metric]:
        with WindowStore(self._at, self._registered_model) as store:
            newest = [window for version in self._versions for window in store.closed(1, version)]
            spent, counts = store.spending.total(), store.verdict_counts()
        yield _verdicts(counts)
        yield from _of_windows(newest)
        yield _counter("ontopic_judge_usd", "US dollars that judging traffic has cost.", value=spent.usd)
        yield _counter("ontopic_judge_replies", "Replies of LLMs that judging traffic took.", value=spent.requests)
        yield self._open_alerts()

    def _open_alerts(self) -> Metric:
        family = GaugeMetricFamily("ontopic_open_alerts", "Alerts that are open, by severity.", labels=["severity"])
        at = self._at if "://" in self._at else Path(self._at).with_name("alerts.db")
        severities = list[str]()
        if is_there(at):
            with Alerts(at, (), policy=self._registered_model.removeprefix(OF_POLICY)) as alerts:
                found = alerts.history(_MOST_ALERTS)
            severities = [alert.severity for alert in found if alert.closed_at is None]
        for severity in get_args(Severity):
            family.add_metric([severity], severities.count(severity))
        return family


def _counter(name: str, what: str, *, value: float) -> Metric:
    family = CounterMetricFamily(name, what)
    family.add_metric([], value)
    return family


def _verdicts(counts: Mapping[tuple[Outcome, str], int]) -> Metric:
    family = CounterMetricFamily("ontopic_verdicts", "Verdicts on traffic.", labels=["outcome", "model_version"])
    upstream, summed = os.environ.get("ONTOPIC_UPSTREAM_MODEL"), dict[tuple[str, str], int]()
    for (outcome, version), n in counts.items():
        # A version of imported traffic is a stranger's text.
        known = version == upstream or (version.isdigit() and len(version) < 10)
        key = (outcome, version if known else "other")
        summed[key] = summed.get(key, 0) + n
    for labels, n in sorted(summed.items()):
        family.add_metric(labels, n)
    return family


def _of_windows(windows: Iterable[Window]) -> Iterator[Metric]:
    """Gauges of these windows, each with the label ``version``."""
    gauges = {
        name: GaugeMetricFamily(f"ontopic_window_{name}", what, labels=["version", *labels])
        for name, (what, labels) in _GAUGES.items()
    }
    for window in windows:
        if window.result is not None:
            for name, labels, value in _values(window, window.result):
                if not math.isnan(value):
                    gauges[name].add_metric([window.model_version, *labels], value)
    yield from gauges.values()


_GAUGES: dict[str, tuple[str, list[str]]] = {
    "share": ("A share of the newest closed window, with the bounds of its 95 % interval.", ["share", "bound"]),
    "share_records": ("How many records that share is of.", ["share"]),
    "limit": ("What the share is held against.", ["share"]),
    "corrected": ("Whether the guardrail score is corrected for the judge's error.", []),
    "status": ("1 for the window's status.", ["status"]),
    "concern": ("1 where the window raises that event (docs/how-to/alerts.md).", ["event"]),
    "drift_distance": ("Share of the questions that would have to be of another topic.", []),
    "latency_seconds": ("Of the window's answers.", ["quantile"]),
    "unjudged_language": ("Share of a language's records that is unjudged.", ["language"]),
    "records": ("Records of the window.", []),
    "end_timestamp_seconds": ("When the window ended.", []),
}


def _values(window: Window, result: WindowResult) -> Iterator[tuple[str, list[str], float]]:
    scores, thumbs = result.scores, result.thumbs
    shares: dict[str, Rate | None] = {
        "guardrail_score": result.score,
        "guardrail_score_as_judged": scores.guardrail_score,
        "over_refusal": scores.over_refusal,
        "leak": scores.leak,
        "unjudged": scores.unjudged_share,
        "slow": result.slow.share if result.slow else None,
        "thumbs_up": thumbs.since if thumbs else None,
    }
    for name, share in shares.items():
        if share is not None and share.n:
            bounds = {"value": share.value, "low": share.low, "high": share.high}
            yield from (("share", [name, bound], value) for bound, value in bounds.items())
            yield "share_records", [name], share.n
    held = {"over_refusal": result.over_refusal, "leak": result.leak, "slow": result.slow}
    limits = {name: each.most for name, each in held.items() if each is not None}
    limits |= {"guardrail_score": result.threshold, "unjudged": result.most_unjudged}
    limits |= {"thumbs_up": thumbs.least} if thumbs else {}
    yield from (("limit", [name], limit) for name, limit in limits.items())
    yield "corrected", [], result.is_corrected
    yield from (("status", [status], status == result.status) for status in get_args(Status))
    raised = concerns(window)
    yield from (("concern", [event], event in raised) for event in _EVENTS)
    if result.drift:
        yield "drift_distance", [], result.drift.distance
    yield from (("latency_seconds", [q], s) for q, s in zip(("0.5", "0.95"), result.latency_s, strict=True))
    for each in result.languages:
        yield "unjudged_language", [each.name], each.scores.unjudged_share.value
    yield "records", [], result.n
    yield "end_timestamp_seconds", [], window.end.timestamp()
