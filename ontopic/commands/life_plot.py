"""The assistant's life, drawn: score and evidence over time, and under them a line for each kind of event."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.commands.life import LANES, Event, Lane, Tone
from ontopic.monitoring.window import Window
from ontopic.reports.parts import Role
from ontopic.reports.plots import Chart, Drawing, Level, Point, Series, Shape, Tick
from ontopic.reports.plots import Event as Mark

Anchor = Literal["start", "middle", "end"]
_BEGIN, _END = 9.0, 97.0  # percent of the width, as the charts above have it
_LANE, _BAR = 46, 16
_LEAST_BAR = 0.6
_LABEL = 15.0  # that "version 2" takes of a page of 390 pixels
_ROLES: dict[Tone, Role] = {"good": "passed", "bad": "failed", "warn": "neutral", "plain": "challenger"}
_TITLES: dict[Lane, str] = {
    "champion": "Champion",
    "alert": "Alerts",
    "training": "Training",
    "gate": "Gates",
    "approval": "Approval",
    "rollout and canary": "Rollout and canary",
}
_STATUSES: tuple[tuple[str, Role], ...] = (
    ("ok", "passed"),
    ("suspected", "challenger"),
    ("detected", "failed"),
    ("unknown", "neutral"),
)


class Span:
    """From when to when the axis goes: from the first event to a little after the last, so that what lasts is seen."""

    def __init__(self, life: Sequence[Event]) -> None:
        times = [time for event in life for time in (event.at, event.until) if time is not None]
        self.first = min(times, default=datetime.now(UTC))
        last = max(times, default=self.first)
        self.last = max(last + (last - self.first) / 20, self.first + timedelta(minutes=1))

    def at(self, time: datetime) -> float:
        """Where a time lies, in percent of the width."""
        share = (min(max(time, self.first), self.last) - self.first) / (self.last - self.first)
        return round(_BEGIN + share * (_END - _BEGIN), 3)

    def ticks(self) -> list[Tick]:
        """Three times of the axis, both ends among them."""
        form = "%H:%M:%S" if self.last - self.first < timedelta(hours=1) else "%m-%d %H:%M"
        if self.last - self.first > timedelta(days=4):
            form = "%Y-%m-%d"
        steps = [self.first + (self.last - self.first) * i / 2 for i in range(3)]
        return [Tick(x=time.timestamp(), label=f"{time.astimezone(UTC):{form}}") for time in steps]


def score_chart(windows: Sequence[Window], life: Sequence[Event], *, span: Span, threshold: float) -> Chart:
    """The guardrail score of each window with its interval, the threshold and the promotions."""
    known = [(window, window.result) for window in windows if window.result and window.result.score.n]
    series = [
        Series(
            name=status,
            role=role,
            joined=False,
            points=[
                Point(
                    x=window.end.timestamp(),
                    y=result.score.value,
                    low=result.score.low,
                    high=result.score.high,
                    hint=f"{window.label}: {result.named_score}",
                )
                for window, result in known
                if result.status == status
            ],
        )
        for status, role in _STATUSES
    ]
    return Chart(
        title="Guardrail score by window",
        note="with its 95 % interval",
        series=[each for each in series if each.points],
        levels=[Level(y=threshold, label=f"threshold {threshold:g}")],
        events=_promotions(life),
        ticks=span.ticks(),
    )


def evidence_chart(windows: Sequence[Window], life: Sequence[Event], *, span: Span) -> Chart | None:
    """The chart over all records of each version: at 1 the alarm is raised; ``None`` where no window has one."""
    versions: dict[str, list[Point]] = {}
    for window in windows:
        chart = window.result.chart if window.result else None
        if chart is not None and chart.n:
            hint = f"{window.label}: {chart.in_words}"
            point = Point(x=window.end.timestamp(), y=chart.statistic / chart.limit, hint=hint)
            versions.setdefault(window.model_version, []).append(point)
    if not versions:
        return None
    newest = next(reversed(versions))
    return Chart(
        title="Evidence that the score has fallen under the threshold",
        note="of all records since the promotion, as a share of the limit; at 1 it is detected",
        series=[
            Series(name=f"version {version}", role="challenger" if version == newest else "champion", points=points)
            for version, points in versions.items()
        ],
        levels=[Level(y=1.0, label="detected")],
        events=_promotions(life),
        ticks=span.ticks(),
        height=150.0,
    )


def _promotions(life: Sequence[Event]) -> list[Mark]:
    """When each version became the champion; of those whose names would overlap, the later one is named."""
    span, marks, last = Span(life), list[Mark](), math.inf
    for event in reversed(life):
        if event.lane == "champion" and (event.until or event.lasts):
            at = span.at(event.at)
            named = last - at >= _LABEL
            marks.append(Mark(x=event.at.timestamp(), label=f"version {event.version}" if named else ""))
            last = at if named else last
    return marks


class Lanes(BaseModel):
    """A line for each kind of event: bars of what lasted, dots of moments.

    Attributes:
        life: what happened, the oldest first.
    """

    model_config = ConfigDict(frozen=True)
    title: str
    note: str = ""
    life: list[Event]

    @property
    def legend(self) -> list[tuple[str, Role]]:
        """Name and role of each tone."""
        return [("good", "passed"), ("bad", "failed"), ("waits or warns", "neutral"), ("otherwise", "challenger")]

    @property
    def described(self) -> str:
        """The plot in words, for who does not see it."""
        counts = [(_TITLES[lane], sum(event.lane == lane for event in self.life)) for lane in LANES]
        return "; ".join(f"{title}: {n} events" for title, n in counts)

    def drawing(self) -> Drawing:
        """Its shapes."""
        span = Span(self.life)
        shapes: list[Shape] = []
        y = 14.0
        for lane in LANES:
            of_it = [event for event in self.life if event.lane == lane]
            shapes.append(Shape(kind="text", x=0, y=y, look="strong", text=_TITLES[lane]))
            if not of_it:
                shapes.append(Shape(kind="text", x=100, y=y, anchor="end", look="muted", text="none"))
            middle = y + 6 + _BAR / 2
            shapes.append(Shape(kind="line", x=_BEGIN, x2=_END, y=middle, y2=middle, look="grid"))
            bars = [event for event in of_it if event.until or event.lasts]
            for number, event in enumerate(bars):
                role: Role = "champion" if event.lane == "champion" and number % 2 == 0 else _ROLES[event.tone]
                shapes += _bar(event, middle, span=span, role=role)
            for event in of_it:  # over the bars
                if not (event.until or event.lasts):
                    shapes.append(_dot(event, middle, span=span))
            y += _LANE
        for tick in span.ticks():
            x = span.at(datetime.fromtimestamp(tick.x, UTC))
            anchor: Anchor = "start" if x < 15 else "end" if x > 85 else "middle"
            shapes.append(Shape(kind="text", x=x, y=y, anchor=anchor, look="muted", text=tick.label))
        return Drawing(height=y + 8, shapes=shapes)


def _bar(event: Event, middle: float, *, span: Span, role: Role) -> Iterator[Shape]:
    x = span.at(event.at)
    width = round(max(_LEAST_BAR, (span.at(event.until) if event.until else _END) - x), 3)
    yield Shape(kind="bar", x=x, x2=width, y=middle - _BAR / 2, y2=_BAR, look=f"of-{role}", hint=_hint(event))
    if event.version and width > _LABEL and x + width / 2 > 2 * _LABEL:  # beside the line's name
        label = f"version {event.version}"
        yield Shape(kind="text", x=x + width / 2, y=middle - _BAR / 2 - 6, anchor="middle", look="muted", text=label)


def _dot(event: Event, middle: float, *, span: Span) -> Shape:
    return Shape(kind="dot", x=span.at(event.at), y=middle, look=f"of-{_ROLES[event.tone]}", hint=_hint(event))


def _hint(event: Event) -> str:
    of = f" version {event.version}" if event.version else ""
    return f"{event.at:%Y-%m-%d %H:%M:%S} UTC: {event.what}{of}. {event.why}"
