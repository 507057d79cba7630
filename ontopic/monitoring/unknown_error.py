"""What a judge's unknown error could make of a score that is not corrected."""

from __future__ import annotations

from ontopic.reports.parts import Role
from ontopic.reports.plots import Chart, Level, Point, Series, Tick
from ontopic.statistics.rates import Rate

SENSITIVITIES: dict[float, Role] = {0.9: "champion", 0.95: "challenger", 1.0: "passed"}
_STEPS = 26


def score_if(raw: float, sensitivity: float, *, specificity: float) -> float | None:
    """The true score behind a raw one, for a judge of such an error; ``None`` where no score in [0, 1] explains it."""
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return None
    value = (raw + specificity - 1) / youden
    return value if -1e-9 <= value <= 1 + 1e-9 else None


def unknown_error_plot(raw: Rate, threshold: float) -> Chart:
    """The true score by the specificity that the judge may have, a line a sensitivity.

    Args:
        raw: the uncorrected score, of at least one record.
    """
    specificities = [0.5 + 0.5 * i / (_STEPS - 1) for i in range(_STEPS)]
    series = []
    for sensitivity, role in SENSITIVITIES.items():
        scores = [(each, score_if(raw.value, sensitivity, specificity=each)) for each in specificities]
        points = [Point(x=each, y=min(1.0, max(0.0, score))) for each, score in scores if score is not None]
        name = f"if it passes {sensitivity:.0%} of the good answers"
        series.append(Series(name=name, points=points, role=role, dots=False))
    return Chart(
        title=f"What the judge's unknown error could make of the uncorrected {raw.value:.3f}",
        note="the true score, by the share of bad answers that the judge fails",
        series=series,
        levels=[Level(y=threshold, label=f"threshold {threshold:g}")],
        ticks=[Tick(x=each, label=f"{each:.0%}") for each in (0.5, 0.75, 1.0)],
        x_axis="bad answers that it fails (specificity)",
    )
