"""Evidently's snapshot of a closed window, which its dashboard reads: `ontopic.monitoring.dashboard`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from evidently import Report
from evidently.core.metric_types import Metric, MetricTest
from evidently.core.report import Snapshot
from evidently.metrics import MeanValue, QuantileValue, UniqueValueCount

from ontopic.config.policy import Policy
from ontopic.monitoring.window import Window, WindowResult
from ontopic.records import Judged, Verdict
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import FailedRecords, GivenRate, Limit, UnjudgedRecords
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


def window_snapshot(
    policy: Policy, window: Window, *, result: WindowResult, judged: Judged, promoted: bool
) -> Snapshot:
    """Evidently's snapshot of a window that closes, with its metrics and its test.

    Args:
        judged: its sampled records, with their verdicts.
        promoted: whether the model version was promoted since the window before; marked on the dashboard.
    """
    metrics = [*_shown(result), *_unshown(result, judged.verdicts, promoted=promoted), FailedRecords()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Report(metrics).run(
            dataset_of(verdict_frame(judged.records, judged.verdicts), judged.verdicts),
            None,
            timestamp=window.end.replace(tzinfo=None),
            name=f"OnTopic window: {policy.name}, {window.label}",
            metadata={"status": result.status, "model_version": window.model_version},
            tags=[f"version-{window.model_version or 'unknown'}", result.status],
        )


def _shown(result: WindowResult) -> list[Metric]:
    """What its report shows, in its order."""
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
