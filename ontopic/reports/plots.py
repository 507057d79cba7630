"""Plots as inline SVG: intervals on one axis, points over an axis, shares as bars.

Drawn here and not by Plotly or Matplotlib: those bring a script of megabytes, or colours and type of their own that
follow neither the dark page nor a narrow one. Along the page all is in percent of the width, so a plot narrows without
its text shrinking; down the page it is in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.reports.parts import Role, Status
from ontopic.reports.scale import Drawing, Scale, Shape, anchor_at, scale_of, steps
from ontopic.statistics.rates import Rate, with_interval

_TEXT = 38.0  # percent that "0.388 [0.344, 0.434]" takes of a page of 390 pixels


class _Plot(BaseModel):
    """What all plots have.

    Attributes:
        title: over it.
        note: under the title.
    """

    model_config = ConfigDict(frozen=True)
    title: str
    note: str = ""


class Mark(BaseModel):
    """One interval in a row.

    Attributes:
        name: whose it is, as the legend has it.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    rate: Rate
    role: Role = "neutral"


class ForestRow(BaseModel):
    """Intervals of the same thing, such as champion's and challenger's, and the limit that it is held against.

    Attributes:
        limit_text: the limit in words, such as "at most 0.2".
    """

    model_config = ConfigDict(frozen=True)
    label: str
    marks: list[Mark]
    limit: float | None = None
    limit_text: str = ""
    status: Status | None = None


class Forest(_Plot):
    """Rows of intervals on one axis.

    Attributes:
        axis: what it measures.
        low, high: its ends; they are moved out to where the intervals end.
        dense: rows stand closer, without the numbers beside the intervals.
    """

    rows: list[ForestRow]
    axis: str = ""
    low: float = 0.0
    high: float = 1.0
    dense: bool = False

    @property
    def legend(self) -> list[tuple[str, Role]]:
        """Name and role of each mark, once each."""
        return list({mark.name: (mark.name, mark.role) for row in self.rows for mark in row.marks}.values())

    @property
    def described(self) -> str:
        """The plot in words, for who does not see it."""
        marks = [", ".join(f"{mark.name} {mark.rate}" for mark in row.marks) for row in self.rows]
        limits = [f" ({row.limit_text})" if row.limit_text else "" for row in self.rows]
        return "; ".join(f"{row.label}: {a}{b}" for row, a, b in zip(self.rows, marks, limits, strict=True))

    def drawing(self) -> Drawing:
        """Its shapes."""
        scale = scale_of([mark.rate for row in self.rows for mark in row.marks], self.low, high=self.high)
        shapes: list[Shape] = []
        head, each, gap = (19, 11, 6) if self.dense else (22, 20, 12)
        y = 4.0
        for row in self.rows:
            shapes += _row_head(row, y)
            y += head
            end = y + each * len(row.marks)
            if row.limit is not None:  # first, as the numbers stand on it
                x = scale.at(row.limit)
                shapes.append(Shape(kind="line", x=x, x2=x, y=y - 3, y2=end + 3, look="limit", hint=row.limit_text))
            for mark in row.marks:
                limit = None if row.limit is None else scale.at(row.limit)
                shapes += _mark(mark, y + each / 2, scale=scale, texts=not self.dense, limit=limit)
                y += each
            y += gap
        return Drawing(height=y + 34, shapes=[*scale.grid(0, y), *scale.labels(y + 14, self.axis), *shapes])


class Point(BaseModel):
    """One point of a chart, with its interval where it has one."""

    model_config = ConfigDict(frozen=True)
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    hint: str = ""


class Series(BaseModel):
    """Points that belong together, in the order of x.

    Attributes:
        joined: by straight lines.
        dots: whether each point is marked.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    points: list[Point]
    role: Role = "neutral"
    joined: bool = True
    dots: bool = True


class Level(BaseModel):
    """A horizontal line with its name, such as a threshold."""

    model_config = ConfigDict(frozen=True)
    y: float
    label: str


class Tick(BaseModel):
    """A name on the axis of x."""

    model_config = ConfigDict(frozen=True)
    x: float
    label: str


class Event(Tick):
    """Something that happened at an x, such as a promotion: a vertical line with its name."""


class Chart(_Plot):
    """Points with intervals over an axis, such as windows over time; of two axes that both run from 0 to 1 too.

    Attributes:
        y_low, y_high: moved out to where the intervals end.
        ticks: where there are more than three, the first, the last and one between are drawn.
    """

    series: list[Series]
    x_axis: str = ""
    y_axis: str = ""
    y_low: float = 0.0
    y_high: float = 1.0
    levels: list[Level] = []
    events: list[Event] = []
    ticks: list[Tick] = []
    height: float = 220.0

    @property
    def legend(self) -> list[tuple[str, Role]]:
        """Name and role of each series."""
        return [(each.name, each.role) for each in self.series]

    @property
    def described(self) -> str:
        """The plot in words, for who does not see it."""
        parts = [f"{len(each.points):,} points of {each.name}" for each in self.series]
        parts += [f"{each.name} ends at {each.points[-1].y:.3f}" for each in self.series if each.points]
        return "; ".join([*parts, *(f"{each.label} at {each.y:g}" for each in self.levels)])

    def drawing(self) -> Drawing:
        """Its shapes."""
        points = [point for each in self.series for point in each.points]
        xs = [*(p.x for p in points), *(e.x for e in self.events), *(t.x for t in self.ticks)] or [0.0, 1.0]
        ys = [y for each in points for y in (each.y, each.low, each.high) if y is not None and math.isfinite(y)]
        across = Scale(min(xs), max(xs), begin=9.0, end=97.0)
        low, high = min([self.y_low, *ys]), max([self.y_high, *ys])
        top, bottom = (26.0 if self.events else 10.0), self.height

        def down(value: float) -> float:
            return bottom - (min(max(value, low), high) - low) / ((high - low) or 1.0) * (bottom - top)

        shapes = [*_grid_down(low, high, down=down), *_ticks(self.ticks, across, y=bottom + 18)]
        for level in self.levels:
            shapes += _level(level, [(across.at(p.x), down(p.y)) for p in points], y=down(level.y))
        for event in self.events:
            x = across.at(event.x)
            shapes.append(Shape(kind="line", x=x, x2=x, y=top - 6, y2=bottom, look="event"))
            shapes.append(Shape(kind="text", x=x, y=12, anchor=anchor_at(x), look="muted", text=event.label))
        for each in self.series:
            shapes += _series(each, across, down=down)
        if self.x_axis:
            shapes.append(Shape(kind="text", x=53, y=bottom + 38, anchor="middle", look="muted", text=self.x_axis))
        return Drawing(height=bottom + (44 if self.x_axis else 26), shapes=shapes)


class Share(BaseModel):
    """One part of a bar."""

    model_config = ConfigDict(frozen=True)
    name: str
    n: int
    role: Role = "neutral"


class Bar(BaseModel):
    """A whole that is cut into shares."""

    model_config = ConfigDict(frozen=True)
    label: str
    shares: list[Share]

    @property
    def counts(self) -> str:
        """In words."""
        return ", ".join(f"{share.n:,} {share.name}" for share in self.shares)


class Bars(_Plot):
    """Bars of one length, each cut into shares; the counts stand beside the label."""

    bars: list[Bar]

    @property
    def legend(self) -> list[tuple[str, Role]]:
        """Name and role of each share, once each."""
        return list({share.name: (share.name, share.role) for bar in self.bars for share in bar.shares}.values())

    @property
    def described(self) -> str:
        """The plot in words, for who does not see it."""
        return "; ".join(f"{bar.label}: {bar.counts}" for bar in self.bars)

    def drawing(self) -> Drawing:
        """Its shapes."""
        shapes, y = [], 4.0
        for bar in self.bars:
            shapes.append(Shape(kind="text", x=0, y=y + 12, look="strong", text=bar.label))
            shapes.append(Shape(kind="text", x=100, y=y + 12, anchor="end", look="muted", text=bar.counts))
            x, one = 0.0, 100 / (sum(share.n for share in bar.shares) or 1)
            for share in bar.shares:
                look, hint = f"of-{share.role}", f"{share.name}: {share.n:,}"
                shapes.append(Shape(kind="bar", x=x, x2=one * share.n, y=y + 20, y2=14, look=look, hint=hint))
                x += one * share.n
            y += 48
        return Drawing(height=y, shapes=shapes)


def _row_head(row: ForestRow, y: float) -> Iterator[Shape]:
    yield Shape(kind="text", x=0, y=y + 14, look="strong", text=row.label)
    sign = {"passed": "✓ ", "failed": "✕ ", "neutral": "", None: ""}[row.status]
    if row.limit_text:
        look = f"ink-{row.status or 'neutral'}"
        yield Shape(kind="text", x=100, y=y + 14, anchor="end", look=look, text=sign + row.limit_text)


def _mark(mark: Mark, y: float, *, scale: Scale, texts: bool, limit: float | None) -> Iterator[Shape]:
    rate, look = mark.rate, f"of-{mark.role}"
    if not rate.n or math.isnan(rate.value):
        yield Shape(kind="text", x=scale.begin, y=y + 4, look="muted", text=f"{mark.name}: no records")
        return
    low, value, high = (scale.at(number) for number in (rate.low, rate.value, rate.high))
    hint = f"{mark.name}: {rate}"
    yield Shape(kind="line", x=low, x2=high, y=y, y2=y, look=look, hint=hint)
    yield Shape(kind=_dot(mark.role), x=value, y=y, look=look, hint=hint)
    text = with_interval(rate.value, rate.low, high=rate.high)
    if limit is not None:  # a number that would lie on its line stands beyond it, where there is room
        high = limit if high < limit < high + _TEXT and limit + _TEXT <= 100 else high
        low = limit if low - _TEXT < limit < low and limit >= _TEXT else low
    if texts and high + _TEXT <= 100:
        yield Shape(kind="text", x=high + 2, y=y + 4, look="number", text=text)
    elif texts and low >= _TEXT:
        yield Shape(kind="text", x=low - 2, y=y + 4, anchor="end", look="number", text=text)


def _dot(role: Role) -> Literal["dot", "square"]:
    return "square" if role == "champion" else "dot"


def _grid_down(low: float, high: float, *, down: Callable[[float], float]) -> Iterator[Shape]:
    for step in steps(low, high):
        y = down(step)
        yield Shape(kind="line", x=9, x2=97, y=y, y2=y, look="grid")
        yield Shape(kind="text", x=8, y=y + 4, anchor="end", look="muted", text=f"{step:g}")


def _ticks(ticks: Sequence[Tick], across: Scale, *, y: float) -> Iterator[Shape]:
    picked = ticks if len(ticks) <= 3 else [ticks[0], ticks[len(ticks) // 2], ticks[-1]]
    for tick in picked:
        x = across.at(tick.x)
        anchor: Literal["start", "middle", "end"] = "start" if x < 15 else "end" if x > 85 else "middle"
        yield Shape(kind="text", x=x, y=y, anchor=anchor, look="muted", text=tick.label)


def _level(level: Level, dots: Sequence[tuple[float, float]], *, y: float) -> Iterator[Shape]:
    """Its line, and its name at the end and on the side of it where the fewest dots are."""

    def under(place: tuple[float, float]) -> int:
        return sum(abs(x - place[0]) < 24 and -18 < down - place[1] < 8 for x, down in dots)

    yield Shape(kind="line", x=9, x2=97, y=y, y2=y, look="limit")
    x, base = min(((end, y + down) for end in (97.0, 9.0) for down in (-4, 15)), key=under)
    yield Shape(kind="text", x=x, y=base, anchor="end" if x > 50 else "start", look="muted", text=level.label)


def _series(series: Series, across: Scale, *, down: Callable[[float], float]) -> Iterator[Shape]:
    look = f"of-{series.role}"
    known = [point for point in series.points if math.isfinite(point.y)]
    for before, after in pairwise(known) if series.joined else ():
        x, x2, line = across.at(before.x), across.at(after.x), f"{look} joining"
        yield Shape(kind="line", x=x, x2=x2, y=down(before.y), y2=down(after.y), look=line)
    for point in known if series.dots else ():
        x = across.at(point.x)
        if point.low is not None and point.high is not None:
            yield Shape(kind="line", x=x, x2=x, y=down(point.low), y2=down(point.high), look=look, hint=point.hint)
        yield Shape(kind=_dot(series.role), x=x, y=down(point.y), look=look, hint=point.hint)
