"""The page on one stretch of a model's traffic and its windows, drawn by Evidently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evidently import Report
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import plotly_figure, table_data, text_widget
from plotly import graph_objs as go

from ontopic.data.by_language import by_language
from ontopic.monitoring.conversations import conversations_of, conversations_table
from ontopic.monitoring.languages import languages_table
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.side_table import side_table
from ontopic.monitoring.standing import Standing
from ontopic.monitoring.unknown_error import unknown_error_figure
from ontopic.monitoring.window import LOW, Status, Window, WindowResult, score_in_words
from ontopic.records import Judged
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import FailedRecords, GivenRate, UnjudgedRecords
from ontopic.reports.page import FAIL_COLOUR, GREY, PASS_COLOUR, names_of, period_of, widgets_of, write_page
from ontopic.statistics.scores import Scores

MAX_TICKS = 12


def traffic_report(
    title: str,
    judged: Judged,
    *,
    scores: Scores,
    of: Standing,
    windows: Sequence[Window],
    threshold: float,
    out: Path,
    beside: Sequence[SideScore] = (),
) -> None:
    """Write the page.

    Args:
        title: what the page is about; names the policy.
        judged: the traffic with its verdicts.
        scores: of all of it, and ``of`` what is known of the guardrail score.
        windows: that it is in, closed, in the order of time.
        threshold: least guardrail score of a window.
        out: the HTML file; written whole or not at all, its folder is made.
        beside: what other judges say of the same records.
    """
    frame = verdict_frame(judged.records, judged.verdicts)
    rates = [
        GivenRate(scores.guardrail_score, "Guardrail score, as judged"),
        *([GivenRate(of.score, "Guardrail score, corrected")] if of.is_corrected else []),
        GivenRate(scores.over_refusal, "Over-refusal"),
        GivenRate(scores.leak, "Leak"),
    ]
    snapshot = Report([*rates, UnjudgedRecords(), FailedRecords()]).run(
        dataset_of(frame, judged.verdicts), None, name=title
    )
    results = [(window, window.result) for window in windows if window.result]
    counts: dict[Status, int] = {}
    for _, result in results:
        counts[result.status] = counts.get(result.status, 0) + 1
    found = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"
    text = (
        f"Model version **{names_of(frame['model_version'])}**, judged by **{names_of(frame['judge_id'])}**: "
        f"{len(frame):,} records, {scores.unjudged:,} unjudged{period_of(frame)}. "
        f"**{score_in_words(of.score, is_corrected=of.is_corrected).capitalize()}**, {of.in_words} "
        f"Windows by their status at the threshold {threshold:g}: **{found}**."
    )
    widgets = widgets_of(snapshot)
    page = [text_widget(title=title, text=text), *widgets[: len(rates)]]
    if not of.is_corrected and of.score.n:
        page.append(unknown_error_figure(of.score, threshold))
    page.append(languages_table(by_language([record.question for record in judged.records], judged.verdicts)))
    if conversations := conversations_of(judged):
        page.append(conversations_table(conversations))
    if beside:
        page.append(side_table(beside))
    write_page(title, [*page, *_windows(results, threshold), *widgets[len(rates) :]], out=out)


def _windows(results: Sequence[tuple[Window, WindowResult]], threshold: float) -> list[BaseWidgetInfo]:
    if not results:
        return [text_widget(title="Windows", text="There are no windows yet.")]
    title = "Guardrail score per window"
    beside = list(dict.fromkeys(each.name for _, result in results for each in result.beside))
    judged = ["As judged"] if any(result.is_corrected for _, result in results) else []  # else that is the score
    thumbs = ["Thumbs up"] if any(result.thumbs for _, result in results) else []
    return [
        plotly_figure(title=title, figure=_figure(results, threshold)),
        table_data(
            title="Windows",
            column_names=[
                "Window",
                "Score",
                *judged,
                "Over-refusal",
                "Leak",
                "Unjudged",
                *thumbs,
                *beside,
                "Status",
            ],
            data=[
                (
                    f"{window.start:%Y-%m-%d %H:%M:%S}",
                    f"{result.score} {'corrected' if result.is_corrected else 'uncorrected'}",
                    *(result.scores.guardrail_score for _ in judged),
                    result.scores.over_refusal,
                    result.scores.leak,
                    result.scores.unjudged,
                    *(_liked(result) for _ in thumbs),
                    *(_beside(result, name) for name in beside),
                    result.status + (f": {result.unknown_because}" if result.unknown_because else ""),
                )
                for window, result in results
            ],
        ),
    ]


def _liked(result: WindowResult) -> str:
    return str(result.thumbs.liked) if result.thumbs and result.thumbs.liked.n else "–"


def _beside(result: WindowResult, name: str) -> str:
    scores = [each.score for each in result.beside if each.name == name]
    return str(scores[0]) if scores and scores[0].n else "–"


def _figure(results: Sequence[tuple[Window, WindowResult]], threshold: float) -> go.Figure:
    shares = [result.score for _, result in results]
    labels = [window.label for window, _ in results]
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(results))),
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
                "color": [FAIL_COLOUR if result.status in LOW else PASS_COLOUR for _, result in results],
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
    floor = min([threshold, *(share.low for share in shares if share.n)])
    figure.update_yaxes(title="guardrail score, 95 % interval", range=[max(0.0, floor - 0.05), 1.02])
    step = -(-len(results) // MAX_TICKS)
    starts = [f"{window.start:%Y-%m-%d %H:%M:%S}" for window, _ in results]
    figure.update_xaxes(tickvals=list(range(len(results)))[::step], ticktext=starts[::step])
    return figure
