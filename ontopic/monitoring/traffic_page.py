"""The page on one stretch of a model's traffic and its windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ontopic.data.by_language import by_language
from ontopic.monitoring.conversations import conversations_of, conversations_table
from ontopic.monitoring.headline import headline, number_in_words, period_in_words
from ontopic.monitoring.languages import languages_table
from ontopic.monitoring.shown_records import shown_records
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.side_table import side_table
from ontopic.monitoring.standing import Standing, WindowLimits
from ontopic.monitoring.unknown_error import unknown_error_plot
from ontopic.monitoring.window import Status, Window, WindowResult, status_of
from ontopic.monitoring.window_plots import SHOWN, evidence_plot, rates_plot, verdicts_plot, windows_plot
from ontopic.monitoring.window_tests import stretch_tests
from ontopic.records import Judged
from ontopic.reports.measurement import Measurement, write_measurement
from ontopic.reports.parts import Badge, Cell, Column, Headline, Link, Table
from ontopic.reports.plots import Chart, Forest
from ontopic.statistics.scores import Scores, score

_LONGEST = 40  # characters of a name over a column


def traffic_report(
    title: str,
    judged: Judged,
    *,
    of: Standing,
    windows: Sequence[Window],
    limits: WindowLimits,
    out: Path,
    beside: Sequence[SideScore] = (),
) -> None:
    """Write the page.

    Args:
        title: what the page is about; names the policy.
        judged: the traffic with its verdicts.
        of: what is known of its guardrail score.
        windows: that it is in, closed, in the order of time.
        limits: what it is held against, as its windows are.
        out: the HTML file; written whole or not at all, its folder is made.
        beside: what other judges say of the same records.
    """
    results = [(window, window.result) for window in windows if window.result]
    scores = score(judged.verdicts)
    threshold, chart = limits.threshold, results[-1][1].chart if results else None
    status = status_of(of, threshold, chart=chart)
    versions = ", ".join(sorted({record.model_version for record in judged.records})) or "unknown"
    tables = [_windows(results)]
    tables.append(languages_table(by_language([record.question for record in judged.records], judged.verdicts)))
    if conversations := conversations_of(judged):
        tables.append(conversations_table(conversations))
    if beside:
        tables.append(side_table(beside))
    found = Measurement(
        kind=title.removeprefix("OnTopic "),
        headline=Headline(
            status=SHOWN[status],
            label=status.capitalize(),
            sentence=headline(status, of, version=versions, threshold=threshold),
            reason=number_in_words(of, scores.guardrail_score),
        ),
        sentences=[f"Its windows, by their status at the threshold {threshold:g}: {_counted(results)}."],
        plots=_plots(of, scores, status=status, threshold=threshold, results=results),
        tests=list(stretch_tests(of, scores, limits=limits, chart=chart)),
        tables=tables,
        counts=verdicts_plot(scores),
        shown=shown_records(judged),
        facts=_facts(judged, scores, threshold=threshold),
    )
    write_measurement(title, found, out=out)


def _counted(results: Sequence[tuple[Window, WindowResult]]) -> str:
    counts: dict[Status, int] = {}
    for _, result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    return ", ".join(f"{n:,} {status}" for status, n in counts.items()) or "none"


def _plots(
    of: Standing,
    scores: Scores,
    *,
    status: Status,
    threshold: float,
    results: Sequence[tuple[Window, WindowResult]],
) -> list[Forest | Chart]:
    plots: list[Forest | Chart] = [rates_plot(of, scores, status=status, threshold=threshold)]
    if len(results) > 1:
        plots.append(windows_plot(results, threshold))
        if evidence := evidence_plot(results):
            plots.append(evidence)
    if not of.is_corrected and of.score.n:
        plots.append(unknown_error_plot(of.score, threshold))
    return plots


def _windows(results: Sequence[tuple[Window, WindowResult]]) -> Table:
    beside = list(dict.fromkeys(each.name for _, result in results for each in result.beside))
    judged = ["As judged"] if any(result.is_corrected for _, result in results) else []  # else that is the score
    thumbs = ["Thumbs up"] if any(result.thumbs for _, result in results) else []
    unknown = ["Why unknown"] if any(result.unknown_because for _, result in results) else []
    named = [name[:_LONGEST] for name in beside]
    numbers = ["Score", *judged, "Over-refusal", "Leak", "Unjudged", *thumbs, *named]
    return Table(
        caption="Windows",
        note="in the order of time, UTC; each has a page of its own",
        columns=[
            Column(name="Window"),
            Column(name="Status"),
            *(Column(name=name, numeric=True) for name in numbers),
            *(Column(name=name) for name in unknown),
        ],
        rows=[
            [
                _named(window, result),
                Badge(status=SHOWN[result.status], text=result.status),
                result.score,
                *(result.scores.guardrail_score for _ in judged),
                result.scores.over_refusal,
                result.scores.leak,
                result.scores.unjudged,
                *(result.thumbs.liked if result.thumbs and result.thumbs.liked.n else None for _ in thumbs),
                *(_beside(result, name) for name in beside),
                *(result.unknown_because for _ in unknown),
            ]
            for window, result in results
        ],
        nothing="There are no windows yet.",
    )


def _named(window: Window, result: WindowResult) -> Cell:
    name = f"{window.id}: {window.start:%Y-%m-%d %H:%M:%S}"
    return Link(text=name, href=Path(result.report).name) if result.report else name


def _beside(result: WindowResult, name: str) -> Cell:
    scores = [each.score for each in result.beside if each.name == name]
    return scores[0] if scores and scores[0].n else None


def _facts(judged: Judged, scores: Scores, *, threshold: float) -> list[tuple[str, Cell]]:
    versions = ", ".join(sorted({record.model_version or "unknown" for record in judged.records}))
    judges = ", ".join(sorted({verdict.judge_id for verdict in judged.verdicts}))
    return [
        ("Records", f"{len(judged.records):,}, of which {scores.unjudged:,} unjudged"),
        ("When", period_in_words(record.asked_at for record in judged.records) or "asked at unknown times"),
        ("Model version", versions or "unknown"),
        ("Judge", judges or "unknown"),
        ("Threshold", threshold),
        ("Guardrail score, as judged", scores.guardrail_score),
    ]
