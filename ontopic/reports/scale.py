"""What a plot is made of: shapes, and a scale on which values lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Rate


class Shape(BaseModel):
    """A line, a dot, a bar or a text. x in percent of the width, y in pixels from above.

    Attributes:
        look: classes of the style sheet.
        anchor: of a text.
        hint: what a pointer over it is told.
    """

    model_config = ConfigDict(frozen=True)
    kind: Literal["line", "dot", "square", "bar", "text"]
    x: float
    y: float
    x2: float = 0.0
    y2: float = 0.0
    look: str = ""
    text: str = ""
    anchor: Literal["start", "middle", "end"] = "start"
    hint: str = ""


class Drawing(BaseModel):
    """A plot's shapes and its height in pixels."""

    model_config = ConfigDict(frozen=True)
    height: float
    shapes: list[Shape]


class Scale:
    """Values as percents of the width."""

    def __init__(self, low: float, high: float, *, begin: float = 2.0, end: float = 98.0) -> None:
        self.low, self.high, self.begin, self.end = low, high, begin, end

    def at(self, value: float) -> float:
        """Where a value lies; what lies beyond an end is at the end."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return round(self.begin + share * (self.end - self.begin), 3)

    def grid(self, top: float, bottom: float) -> Iterator[Shape]:
        """A line at each step."""
        for step in steps(self.low, self.high):
            look = "zero" if step == 0 and self.low < 0 else "grid"
            yield Shape(kind="line", x=self.at(step), x2=self.at(step), y=top, y2=bottom, look=look)

    def labels(self, y: float, axis: str) -> Iterator[Shape]:
        """The value of each step, and under them what they measure."""
        for step in steps(self.low, self.high):
            x = self.at(step)
            yield Shape(kind="text", x=x, y=y, anchor=anchor_at(x), look="muted", text=f"{step:g}")
        if axis:
            yield Shape(kind="text", x=50, y=y + 18, anchor="middle", look="muted", text=axis)


def scale_of(rates: Sequence[Rate], low: float, *, high: float) -> Scale:
    """An axis on which all intervals lie, whose ends are steps."""
    known = [end for rate in rates if rate.n for end in (rate.low, rate.high) if math.isfinite(end)]
    least, most = min([low, *known]), max([high, *known])
    step = _step(most - least)
    return Scale(math.floor(least / step + 1e-9) * step, math.ceil(most / step - 1e-9) * step)


def _step(spread: float) -> float:
    """A round one of which there are four to eight."""
    size = 10 ** math.floor(math.log10(spread or 1.0))
    return float(next(part * size for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if spread / (part * size) <= 8))


def steps(low: float, high: float) -> list[float]:
    """The round values from one end to the other."""
    step = _step(high - low)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def anchor_at(x: float) -> Literal["start", "middle", "end"]:
    """How a text at ``x`` percent stays on the page."""
    return "start" if x < 8 else "end" if x > 92 else "middle"
