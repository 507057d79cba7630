"""The page of a guard's card, drawn by Evidently: the curve of each stage, and what the guard errs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import WidgetSize, plotly_figure, text_widget
from plotly import graph_objs as go

from ontopic.config.policy import Policy
from ontopic.judges.guard.card import CurvePoint, GuardCard, StageCard, guard_card
from ontopic.reports.page import FAIL_COLOUR, GREY, PASS_COLOUR, page_name, plain_markdown, text_table, write_page
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import Rate

STAGES = {"question": "before generation: the question's scope", "answer": "after generation: the answer"}


def guard_page(registered_model: str, reports: Path) -> Path:
    """Where the page of a policy's guard is, in the folder of the reports."""
    return reports / page_name("guard-card", registered_model)


def drawn_guard_card(policy: Policy, workspace: Workspace, *, budget: float) -> tuple[GuardCard, Path]:
    """The card of a policy's guard, as ``guard_card`` has it, and its page, drawn anew.

    Raises:
        UserError: labelled data is missing or malformed.
    """
    card = guard_card(policy, workspace=workspace, budget=budget)
    page = guard_page(policy.registered_model, workspace.reports)
    guard_report(card, out=page)
    return card, page


def guard_report(card: GuardCard, *, out: Path) -> None:
    """Write the page of a guard's card, whole or not at all; its folder is made."""
    title = f"Guard card: {card.judge_id}"
    text = (
        f"The guard's judge is **{plain_markdown(card.judge_id)}**. It stops what has a score under the threshold: "
        f"{card.question.chosen:g} for questions, {card.answer.chosen:g} for answers, the highest at which it stops at "
        f"most {card.budget / 2:.2%} of what should pass at each stage (serving.guard_budget {card.budget:g}) on the "
        "calibration split. Below are the errors by cross-fitting: on each half of the split with the thresholds that "
        "the other half gave. Intervals are at 95 %."
    )
    rows = {
        **{STAGES[name]: getattr(card, name).held_out for name in STAGES},
        "both, on the answers": card.both,
    }
    frame = pd.DataFrame(
        {
            "Stage": list(rows),
            "Over-refusal": [str(errors.over_refusal) for errors in rows.values()],
            "Leak": [str(errors.leak) for errors in rows.values()],
        }
    )
    widgets = [
        text_widget(title=title, text=text),
        text_table("Errors of the guard alone", frame, nothing=""),
        *(_curve(getattr(card, name), f"By threshold, {words}") for name, words in STAGES.items()),
    ]
    write_page(title, widgets, out=out)


def _curve(stage: StageCard, title: str) -> BaseWidgetInfo:
    """Over-refusal against leak, a point a threshold, with the chosen one."""
    known = [point for point in stage.curve if point.over_refusal.n and point.leak.n]
    if not known:
        return text_widget(title=title, text="Too little is labelled to draw it.")
    chosen = [point for point in known if point.threshold == stage.chosen]
    figure = go.Figure(
        [
            _points(known, "lines+markers", name="by threshold", colour=GREY),
            _points(chosen, "markers", name=f"chosen: {stage.chosen:g}", colour=PASS_COLOUR, size=13),
        ]
    )
    figure.update_xaxes(title=f"over-refusal (n = {known[0].over_refusal.n:,})", rangemode="tozero")
    figure.update_yaxes(title=f"leak (n = {known[0].leak.n:,})", rangemode="tozero")
    figure.update_layout(legend={"x": 0.98, "y": 0.98, "xanchor": "right"}, margin={"t": 20, "r": 20})
    return plotly_figure(title=title, figure=figure, size=WidgetSize.HALF)


def _points(points: list[CurvePoint], mode: str, *, name: str, colour: str, size: int = 6) -> go.Scatter:
    return go.Scatter(
        x=[point.over_refusal.value for point in points],
        y=[point.leak.value for point in points],
        error_x=_errors([p.over_refusal for p in points]) if size > 6 else None,
        error_y=_errors([p.leak for p in points]) if size > 6 else None,
        mode=mode,
        marker={"size": size, "color": colour},
        line={"color": colour, "width": 1},
        hovertext=[f"threshold {point.threshold:g}: {point}" for point in points],
        hoverinfo="text",
        name=name,
    )


def _errors(shares: list[Rate]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [share.high - share.value for share in shares],
        "arrayminus": [share.value - share.low for share in shares],
        "color": FAIL_COLOUR,
    }
