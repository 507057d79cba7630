"""Pages on judges: a judge's card with what it got wrong, and several judges side by side; drawn by Evidently."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import CounterData, WidgetSize, counter, plotly_figure, text_widget
from plotly import graph_objs as go

from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import SHARES, Group, JudgeCard
from ontopic.records import Verdict
from ontopic.reports.metrics import rate_value
from ontopic.reports.page import GREY, PASS_COLOUR, page_name, plain_markdown, text_table, write_page
from ontopic.statistics.rates import Rate


def card_page(judge_id: str, registered_model: str, *, reports: Path, scope_given: bool = False) -> Path:
    """Where the page of a judge's card on a policy's labels is, in the folder of the reports."""
    told = ["told-the-scope"] if scope_given else []
    return reports / page_name("judge-card", registered_model, *judge_id.rsplit("-", 1), *told)


def comparison_page(registered_model: str, reports: Path) -> Path:
    """Where the page that compares a policy's judges is."""
    return reports / page_name("judges-compared", registered_model)


def card_report(measured: Measured, source: str, *, out: Path) -> None:
    """Write the page of a judge's card.

    Args:
        source: what the labelled records are, in words.
        out: the HTML file; written whole or not at all, its folder is made.
    """
    card = measured.card
    title = f"Judge card: {card.judge_id} (scope {card.instrument})"
    use = (
        "It was told of each question whether it is in scope, as in the gate: this card decides whether it may gate."
        if card.scope_given
        else "It was not told whether a question is in scope, as on traffic: windows go by this card."
    )
    at = f", measured {card.measured_at:%Y-%m-%d %H:%M} UTC" if card.measured_at else ""
    text = (
        f"Judge **{plain_markdown(card.judge_id)}** on {card.n:,} labelled records of {plain_markdown(source)}{at}. "
        f"{use} {card.unjudged:,} of them it could not judge; they count in no share. Intervals are at 95 %. Labels "
        f"{card.labels_sha256[:12] or 'unknown'}, criteria {card.criteria_sha256[:12] or 'unknown'} (sha256)."
    )
    widgets = [
        text_widget(title=title, text=text),
        *(_share_counter(name, getattr(card, name)) for name in SHARES),
        *([_share_counter("agreement of the panel (alpha)", card.agreement)] if card.agreement else []),
        *_usage_counters(card),
        _calibration_figure(card),
        _confusion_figure(measured),
        _groups_table("Intent or kind", card.groups),
        _groups_table("Language of the question", card.languages),
        _wrong_table(measured),
    ]
    if card.causes:
        causes = pd.DataFrame(list(card.causes.items()), None, ["Cause", "Records"])
        widgets.append(text_table("Causes of unjudged records", causes, nothing=""))
    write_page(title, widgets, out=out)


def comparison_report(ranked: Sequence[Measured], sentences: Sequence[str], *, source: str, out: Path) -> None:
    """Write the page that compares judges which were measured on the same records.

    Args:
        ranked: the best judge first.
        sentences: what the comparison says, for the head of the page.
        source: what the labelled records are, in words.
        out: the HTML file; written whole or not at all, its folder is made.
    """
    cards = [measured.card for measured in ranked]
    title = f"Judges compared on {cards[0].n:,} labelled records"
    several = len(cards) > 1
    text = (
        f"{len(cards)} {'judges' if several else 'judge'} on the {cards[0].n:,} labelled records of "
        f"{plain_markdown(source)}{', the one with the greatest lower bound of accuracy first' if several else ''}. "
        + " ".join(plain_markdown(sentence) for sentence in sentences)
    )
    columns = {
        "Judge": [card.judge_id for card in cards],
        **{name.capitalize(): [getattr(card, name).with_interval for card in cards] for name in SHARES},
        "Unjudged": [f"{card.unjudged:,}" for card in cards],
        "s per 1,000": [_seconds(card) for card in cards],
        "$ per 1,000": [_dollars(card) for card in cards],
    }
    widgets = [
        text_widget(title=title, text=text),
        text_table("Judges", pd.DataFrame(columns), nothing=""),
        _shares_figure(cards),
        _price_figure(cards),
    ]
    write_page(title, widgets, out=out)


def _share_counter(name: str, share: Rate) -> BaseWidgetInfo:
    if math.isnan(share.value) and share.n:  # kappa or alpha, where there is nothing to agree on beyond chance
        data = CounterData(f"not defined: all verdicts are alike, n = {share.n:,}", "–")
    else:
        data = rate_value(name, share).card()
    return counter(title=name.capitalize(), size=WidgetSize.SMALL, counters=[data])


def _usage_counters(card: JudgeCard) -> list[BaseWidgetInfo]:
    usage = card.usage
    tokens = "no tokens" if usage else "not measured"
    if usage and usage.prompt_tokens:
        tokens = f"{usage.prompt_tokens:,.0f} prompt and {usage.completion_tokens:,.0f} completion tokens"
    price = f"price not known; {tokens}" if usage and usage.usd is None else tokens
    measured_on = f"measured on {usage.records:,} records" if usage else "not measured"

    def score(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    return [
        counter(title=title, size=WidgetSize.SMALL, counters=[CounterData(label, value)])
        for title, label, value in (
            ("Seconds per 1,000", measured_on, _seconds(card)),
            ("Dollars per 1,000", price, _dollars(card)),
            ("Brier score", "mean squared error of the score; 0 is best", score(card.brier)),
            ("Calibration error", "expected, over ten bins; 0 is best", score(card.calibration_error)),
        )
    ]


def _calibration_figure(card: JudgeCard) -> BaseWidgetInfo:
    title = "Calibration curve: what a score is worth"
    if not card.calibration:
        return text_widget(title=title, text="The judge gave no score.")
    bins = card.calibration
    shares = [each.passing for each in bins]
    figure = go.Figure(
        [
            go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": GREY, "dash": "dash"}, name="perfect"),
            go.Scatter(
                x=[each.mean_score for each in bins],
                y=[share.value for share in shares],
                error_y=_errors(shares),
                mode="lines+markers",
                marker={"size": 9, "color": PASS_COLOUR},
                line={"color": PASS_COLOUR, "width": 1},
                hovertext=[f"mean score {each.mean_score:.3f}: {each.passing} labelled pass" for each in bins],
                hoverinfo="text",
                name="this judge",
            ),
        ]
    )
    for each in bins:
        figure.add_annotation(
            x=each.mean_score, y=0, yref="paper", text=f"{each.passing.n:,}", showarrow=False, font={"color": GREY}
        )
    figure.update_xaxes(title="mean score of a bin (number of records above the axis)", range=[-0.04, 1.04])
    figure.update_yaxes(title="share labelled pass, 95 % interval", range=[-0.09, 1.04])
    figure.update_layout(legend={"x": 0.02, "y": 0.98}, margin={"t": 20, "r": 20})
    return plotly_figure(title=title, figure=figure, size=WidgetSize.HALF)


def _confusion_figure(measured: Measured) -> BaseWidgetInfo:
    labels, outcomes = ["fail", "pass"], ["pass", "fail", "unjudged"]
    pairs: list[tuple[str | None, str]] = [
        (r.label, v.outcome) for r, v in zip(measured.records, measured.verdicts, strict=True)
    ]
    counts = [[pairs.count((label, said)) for said in outcomes] for label in labels]
    totals = [max(sum(row), 1) for row in counts]
    # Of each label's records: right ones green, wrong ones red, unjudged ones grey, the more the stronger.
    sign = {("pass", "pass"): 1, ("fail", "fail"): 1, ("pass", "fail"): -1, ("fail", "pass"): -1}
    shades = [
        [sign.get((label, said), 0) * n / total for said, n in zip(outcomes, row, strict=True)]
        for label, row, total in zip(labels, counts, totals, strict=True)
    ]
    words = [[f"{n:,}<br>{n / total:.1%}" for n in row] for row, total in zip(counts, totals, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=shades,
            x=outcomes,
            y=labels,
            text=words,
            texttemplate="%{text}",
            textfont={"size": 16},
            colorscale=[[0, "#ef9a9a"], [0.5, "#f5f5f5"], [1, "#a5d6a7"]],
            zmin=-1,
            zmax=1,
            showscale=False,
            hoverinfo="skip",
            xgap=3,
            ygap=3,
        )
    )
    figure.update_xaxes(title="judged", side="top")
    figure.update_yaxes(title="labelled")
    figure.update_layout(margin={"t": 60, "r": 20})
    return plotly_figure(title="Confusion matrix, with shares of each label", figure=figure, size=WidgetSize.HALF)


def _groups_table(what: str, groups: Sequence[Group]) -> BaseWidgetInfo:
    columns = {
        what: [group.name for group in groups],
        "n": [group.n for group in groups],
        "Right": [group.right for group in groups],
        "Pass judged fail": [group.false_fails for group in groups],
        "Fail judged pass": [group.false_passes for group in groups],
        "Unjudged": [group.unjudged for group in groups],
    }
    title = f"Errors by {what[0].lower()}{what[1:]}, the worst first"
    return text_table(title, pd.DataFrame(columns), nothing="There are no records.")


def _wrong_table(measured: Measured) -> BaseWidgetInfo:
    wrong = [
        (record, said)
        for record, said in zip(measured.records, measured.verdicts, strict=True)
        if record.label and said.outcome not in (record.label, "unjudged")
    ]
    wrong.sort(key=lambda pair: -_sureness(pair[1]))
    columns = {
        "Question": [record.record().asked for record, _ in wrong],
        "Answer": [record.answer for record, _ in wrong],
        "Label": [record.label for record, _ in wrong],
        "Verdict": [said.outcome for _, said in wrong],
        "Score": ["–" if said.score is None else f"{said.score:.3f}" for _, said in wrong],
        "Explanation": [said.explanation for _, said in wrong],
    }
    title = "Records that it got wrong, the surest first"
    return text_table(title, pd.DataFrame(columns), nothing="It got no record wrong.")


def _sureness(verdict: Verdict) -> float:
    return 0.0 if verdict.score is None else abs(verdict.score - 0.5)


def _shares_figure(cards: Sequence[JudgeCard]) -> BaseWidgetInfo:
    names = _names(cards)
    figure = go.Figure()
    for title, colour, shift in (("accuracy", PASS_COLOUR, -0.12), ("kappa", "#1565c0", 0.12)):
        shares = [getattr(card, title) for card in cards]
        figure.add_trace(
            go.Scatter(
                x=[None if math.isnan(share.value) else share.value for share in shares],
                y=[row + shift for row in range(len(cards))],
                error_x=_errors(shares, colour),
                mode="markers",
                marker={"color": colour, "size": 10},
                hovertext=[f"{name}: {title} {share}" for name, share in zip(names, shares, strict=True)],
                hoverinfo="text",
                name=title,
            )
        )
    figure.update_xaxes(title="value and 95 % interval")
    rows = list(range(len(cards)))
    figure.update_yaxes(tickvals=rows, ticktext=names, range=[len(cards) - 0.5, -0.5], automargin=True, zeroline=False)
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    figure.update_layout(height=max(450, 180 + 50 * len(cards)), legend=legend, margin={"t": 40, "r": 20})
    return plotly_figure(title="Accuracy and kappa", figure=figure)


def _price_figure(cards: Sequence[JudgeCard]) -> BaseWidgetInfo:
    """Accuracy against dollars where all prices are known and one is not 0, else against seconds."""
    known = [(card, name) for card, name in zip(cards, _names(cards), strict=True) if card.usage and card.accuracy.n]
    prices = [card.usage.usd for card, _ in known if card.usage]
    by_price = None not in prices and any(prices)
    unit = "dollars" if by_price else "seconds"
    title = f"Accuracy against {unit} per 1,000 records"
    if not known:
        return text_widget(title=title, text="No judge's time or price was measured.")
    shares = [card.accuracy for card, _ in known]
    amounts = [float(card.usage.usd or 0.0) if by_price else card.usage.seconds for card, _ in known if card.usage]
    figure = go.Figure(
        go.Scatter(
            x=amounts,
            y=[share.value for share in shares],
            error_y=_errors(shares),
            mode="markers+text",
            text=[name for _, name in known],
            # Beside the point, on the side where there is room.
            textposition=["top left" if amount > max(amounts) / 2 else "top right" for amount in amounts],
            cliponaxis=False,
            marker={"size": 11, "color": PASS_COLOUR},
            hovertext=[f"{name}: {card.accuracy}" for card, name in known],
            hoverinfo="text",
        )
    )
    figure.update_xaxes(title=f"{unit} per 1,000 records", rangemode="tozero")
    figure.update_yaxes(title="accuracy, 95 % interval", range=[min(share.low for share in shares) - 0.02, 1.02])
    figure.update_layout(margin={"t": 20, "r": 20})
    return plotly_figure(title=title, figure=figure)


def _names(cards: Sequence[JudgeCard]) -> list[str]:
    """The judges' ids, of which Plotly would take tags for its own markup."""
    return [html.escape(card.judge_id) for card in cards]


def _errors(shares: Sequence[Rate], colour: str = GREY) -> dict[str, object]:
    known = [not math.isnan(share.value) for share in shares]
    return {
        "type": "data",
        "symmetric": False,
        "array": [share.high - share.value if ok else 0 for share, ok in zip(shares, known, strict=True)],
        "arrayminus": [share.value - share.low if ok else 0 for share, ok in zip(shares, known, strict=True)],
        "color": colour,
    }


def _seconds(card: JudgeCard) -> str:
    return f"{card.usage.seconds:.3g}" if card.usage else "–"


def _dollars(card: JudgeCard) -> str:
    return "–" if card.usage is None or card.usage.usd is None else f"{card.usage.usd:.4g}"
