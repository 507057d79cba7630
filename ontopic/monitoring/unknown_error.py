"""What a judge's unknown error could make of a score that is not corrected."""

from __future__ import annotations

from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import plotly_figure
from plotly import graph_objs as go

from ontopic.reports.page import FAIL_COLOUR, GREY, PASS_COLOUR
from ontopic.statistics.rates import Rate

SENSITIVITIES = {0.9: GREY, 0.95: "#1565c0", 1.0: PASS_COLOUR}
_STEPS = 51


def score_if(raw: float, sensitivity: float, *, specificity: float) -> float | None:
    """The true score behind a raw one, for a judge of such an error; ``None`` where no score in [0, 1] explains it."""
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return None
    value = (raw + specificity - 1) / youden
    return value if -1e-9 <= value <= 1 + 1e-9 else None


def unknown_error_figure(raw: Rate, threshold: float) -> BaseWidgetInfo:
    """The true score by the specificity that the judge may have, a line a sensitivity.

    Args:
        raw: the uncorrected score, of at least one record.
    """
    specificities = [0.5 + 0.5 * i / (_STEPS - 1) for i in range(_STEPS)]
    figure = go.Figure()
    for sensitivity, colour in SENSITIVITIES.items():
        figure.add_trace(
            go.Scatter(
                x=specificities,
                y=[score_if(raw.value, sensitivity, specificity=each) for each in specificities],
                mode="lines",
                line={"color": colour},
                name=f"if it passes {sensitivity:.0%} of the good answers",
            )
        )
    figure.add_hline(
        threshold,
        line={"color": FAIL_COLOUR, "dash": "dash"},
        annotation={"text": f"threshold {threshold:g}", "font": {"color": FAIL_COLOUR}},
    )
    figure.update_xaxes(title="share of bad answers that the judge fails (specificity)")
    figure.update_yaxes(title="true score", range=[0, 1.02])
    figure.update_layout(margin={"t": 20, "r": 20}, legend={"orientation": "h", "y": -0.25})
    return plotly_figure(
        title=f"What the judge's unknown error could make of the uncorrected {raw.value:.3f}", figure=figure
    )
