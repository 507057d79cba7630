"""The pictures of a page on traffic: one stretch's rates, its windows over time, and the chart over all records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ontopic.monitoring.standing import Standing
from ontopic.monitoring.window import LOW, Status, Window, WindowResult
from ontopic.reports.parts import Role
from ontopic.reports.parts import Status as Shown
from ontopic.reports.plots import Bar, Bars, Chart, Forest, ForestRow, Level, Mark, Point, Series, Share, Tick
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores

SHOWN: dict[Status, Shown] = {"ok": "passed", "suspected": "failed", "detected": "failed", "unknown": "neutral"}
_LEAST = -3.0  # powers of ten under the limit: nothing is to be seen of less evidence
Results = Sequence[tuple[Window, WindowResult]]


def rates_plot(of: Standing, scores: Scores, *, status: Status, threshold: float, thumbs: Rate | None = None) -> Forest:
    """The guardrail score against its threshold, over-refusal and leak, and what people think."""
    role: Role = SHOWN[status]
    first = [Mark(name="corrected" if of.is_corrected else "as judged", rate=of.score, role=role)]
    if of.is_corrected:
        first.append(Mark(name="as judged", rate=scores.guardrail_score))
    rows = [
        ForestRow(
            label="Guardrail score",
            marks=first,
            limit=threshold,
            limit_text=f"at least {threshold:g}",
            status=SHOWN[status],
        ),
        ForestRow(label="Over-refusal of in-scope questions", marks=[_as_judged(scores.over_refusal)]),
        ForestRow(label="Leak of out-of-scope questions", marks=[_as_judged(scores.leak)]),
    ]
    if thumbs is not None and thumbs.n:
        rows.append(ForestRow(label="Thumbs that are up", marks=[Mark(name="people", rate=thumbs)]))
    return Forest(title="What was found", note="with 95 % intervals", rows=rows, axis="share of the records")


def _as_judged(rate: Rate) -> Mark:
    return Mark(name="as judged", rate=rate)


def verdicts_plot(scores: Scores) -> Bars:
    """How many passed, failed and were not judged."""
    judged = scores.guardrail_score
    passed = round(judged.value * judged.n) if judged.n else 0
    counts: list[tuple[str, int, Role]] = [("pass", passed, "passed"), ("fail", judged.n - passed, "failed")]
    counts.append(("unjudged", scores.unjudged, "neutral"))
    shares = [Share(name=name, n=n, role=role) for name, n, role in counts]
    return Bars(title="Verdicts", bars=[Bar(label=f"{judged.n + scores.unjudged:,} records", shares=shares)])


def windows_plot(results: Results, threshold: float) -> Chart:
    """The guardrail score of each window with its interval, against the threshold."""
    kinds: dict[str, tuple[Role, list[Point]]] = {}
    for x, (window, result) in enumerate(results):
        name = "under the threshold" if result.status in LOW else result.status
        _, points = kinds.setdefault(name, (SHOWN[result.status], []))
        if result.score.n:
            hint = f"{window.label}: {result.status}, {result.named_score}"
            share = result.score
            points.append(Point(x=x, y=share.value, low=share.low, high=share.high, hint=hint))
    return Chart(
        title="Guardrail score by window",
        note="95 % intervals; windows in the order of time (UTC)",
        series=[Series(name=name, points=points, role=role, joined=False) for name, (role, points) in kinds.items()],
        levels=[Level(y=threshold, label=f"threshold {threshold:g}")],
        ticks=_ticks(results),
    )


def evidence_plot(results: Results) -> Chart | None:
    """The sequential chart after each window; ``None`` where fewer than two have one."""
    points = [
        Point(
            x=x, y=_power(result.chart.statistic, result.chart.limit), hint=f"{window.label}: {result.chart.in_words}"
        )
        for x, (window, result) in enumerate(results)
        if result.chart is not None
    ]
    if len(points) < 2:
        return None
    return Chart(
        title="Evidence that the score has fallen, after each window",
        note="as a power of ten of the limit: 0 is the limit, at which the alarm is raised, and -1 a tenth of it",
        series=[Series(name="evidence", points=points, role="challenger")],
        y_low=_LEAST,
        levels=[Level(y=0.0, label="limit of the alarm")],
        ticks=_ticks(results),
        height=180,
    )


def _power(statistic: float, limit: float) -> float:
    share = statistic / limit if limit else 0.0
    return max(_LEAST, math.log10(share)) if share > 0 else _LEAST


def _ticks(results: Results) -> list[Tick]:
    starts = [window.start for window, _ in results]
    one_day = len({start.date() for start in starts}) == 1
    return [
        Tick(x=x, label=f"{start:%H:%M:%S}" if one_day else f"{start:%m-%d %H:%M}") for x, start in enumerate(starts)
    ]
