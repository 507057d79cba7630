"""The page on one closed window."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.monitoring.conversations import conversations_table
from ontopic.monitoring.headline import headline, number_in_words, period_in_words
from ontopic.monitoring.languages import languages_table
from ontopic.monitoring.shown_records import shown_records
from ontopic.monitoring.side_table import side_table
from ontopic.monitoring.unknown_error import unknown_error_plot
from ontopic.monitoring.window import Drift, Window, WindowResult
from ontopic.monitoring.window_plots import SHOWN, evidence_plot, rates_plot, verdicts_plot, windows_plot
from ontopic.monitoring.window_tests import window_tests
from ontopic.records import Judged
from ontopic.reports.measurement import Measurement, write_measurement
from ontopic.reports.parts import Cell, Column, Headline, Table
from ontopic.reports.plots import Chart, Forest

TIME = "%Y-%m-%d %H:%M:%S"


def window_report(
    policy: Policy, window: Window, *, result: WindowResult, judged: Judged, earlier: Sequence[Window], out: Path
) -> None:
    """Write the page on a window that closes.

    Args:
        judged: its sampled records, with their verdicts.
        earlier: windows of the same version before it, the newest first; those without a result are left out.
        out: the HTML file; written whole or not at all.
    """
    before = [(each, each.result) for each in reversed(earlier) if each.result]
    found = Measurement(
        kind=f"window of {policy.name}, version {window.model_version or 'unknown'}, from {window.start:{TIME}} UTC",
        headline=Headline(
            status=SHOWN[result.status],
            label=result.status.capitalize(),
            sentence=headline(result.status, result, version=window.model_version, threshold=result.threshold),
            reason=number_in_words(result, result.scores.guardrail_score),
        ),
        plots=_plots(result, windows=[*before, (window, result)]),
        tests=list(window_tests(result, policy)),
        tables=_tables(result),
        counts=verdicts_plot(result.scores),
        shown=shown_records(judged),
        facts=_facts(window, result, judged=judged),
    )
    write_measurement(f"OnTopic window: {policy.name}, {window.label}", found, out=out)


def _plots(result: WindowResult, *, windows: Sequence[tuple[Window, WindowResult]]) -> list[Forest | Chart]:
    liked = result.thumbs.liked if result.thumbs else None
    plots: list[Forest | Chart] = [
        rates_plot(result, result.scores, status=result.status, threshold=result.threshold, thumbs=liked)
    ]
    if len(windows) > 1:
        plots.append(windows_plot(windows, result.threshold))
        if evidence := evidence_plot(windows):
            plots.append(evidence)
    if not result.is_corrected and result.score.n:
        plots.append(unknown_error_plot(result.score, result.threshold))
    return plots


def _tables(result: WindowResult) -> list[Table]:
    tables = [languages_table(result.languages)]
    if result.conversations:
        tables.append(conversations_table(result.conversations))
    if result.beside:
        tables.append(side_table(result.beside))
    if result.drift and result.drift.grown:
        tables.append(_grown(result.drift))
    return tables


def _grown(drift: Drift) -> Table:
    return Table(
        caption="Topics that grew most",
        columns=[
            Column(name="Topic (the calibration question nearest its centre)", wide=True),
            Column(name="First healthy windows", numeric=True),
            Column(name="Now", numeric=True),
        ],
        rows=[[topic, before, after] for topic, before, after in drift.grown],
    )


def _facts(window: Window, result: WindowResult, *, judged: Judged) -> list[tuple[str, Cell]]:
    facts: list[tuple[str, Cell]] = [
        ("Records", f"{result.n:,}, of which {result.sampled:,} were given to the judge"),
        ("Judged ones", period_in_words(record.asked_at for record in judged.records) or "asked at unknown times"),
        ("From, to", f"{window.start:{TIME}} to {window.end:{TIME}} UTC"),
        ("Judge", result.judge_id),
        ("Threshold", result.threshold),
        ("Late", f"{result.late:,} reopened the window, {result.too_late:,} came after that and do not count"),
        ("Latency", f"median {result.latency_s[0]:.2f} s, 95 % under {result.latency_s[1]:.2f} s"),
        ("Tokens", f"{result.prompt_tokens:,} of prompts, {result.completion_tokens:,} of answers"),
    ]
    if result.sampled < result.n:
        facts.append(
            (
                "Sample",
                f"the raw score's interval is {result.width:.3f} wide, and would be about "
                f"{result.width_unsampled:.3f} with all records",
            )
        )
    if result.described is not None and result.described < result.sampled:
        facts.append(
            (
                "In memory",
                f"latency, topics, languages, conversations, Evidently's snapshot and the records on this page are of "
                f"{result.described:,} of the {result.sampled:,} records, whole conversations at random; scores, alarm "
                "and tokens are of all",
            )
        )
    if result.revision > 1:
        facts.append(("Revision", f"{result.revision}: reopened for {result.late:,} late records"))
    if result.thumbs:
        facts.append(("Thumbs", result.thumbs.in_words))
    limited = {
        "Over-refusal, as judged": result.over_refusal,
        "Leak, as judged": result.leak,
        "Answers slower than the limit": result.slow,
    }
    facts += [(name, share.in_words) for name, share in limited.items() if share is not None]
    if result.judge_cost:
        facts.append(("The judge's cost", result.judge_cost.in_words))
    if result.chart:
        facts.append(("Since the promotion", result.chart.in_words))
    facts.append(("On a dashboard", "Evidently has this window's metrics: python run.py ui"))
    return facts
