"""Topic drift: whether other things are asked than in the champion's first healthy windows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2_contingency

from ontopic.monitoring.topics import Topics
from ontopic.monitoring.window import LOW, Drift, Window
from ontopic.monitoring.windows import WindowStore

A_MONTH, MOST_A_LOOK = 0.05, 0.01
LEAST_DISTANCE = 0.1
REFERENCE, POOLED, LEAST = 500, 300, 100  # questions
_MONTH = timedelta(days=30)
_MOST_WINDOWS = 200
_LEAST_EXPECTED = 5  # of a topic in the smaller sample, for the chi-squared approximation
_GROWN = 3


class Past(NamedTuple):
    """What was asked before a window.

    Attributes:
        reference: of the champion's first healthy windows; too few questions where there are none yet.
        earlier: of the windows between those and this one, the newest first.
        elapsed: time since the window before.
    """

    reference: Sequence[Drift]
    earlier: Sequence[Drift]
    elapsed: timedelta


def past_of(window: Window, windows: WindowStore, *, promoted: datetime) -> Past:
    """What was asked of the window's version before it, since its promotion."""
    first = windows.earlier(window, _MOST_WINDOWS, since=promoted, oldest=True)
    reference: list[Drift] = []
    until = None
    for each in first:
        if each.result and each.result.drift and each.result.status not in LOW:
            reference.append(each.result.drift)
            until = each
            if sum(sum(drift.counts.values()) for drift in reference) >= REFERENCE:
                break
    last = windows.earlier(window, _MOST_WINDOWS, since=until.end if until else promoted)
    earlier = [each.result.drift for each in last if each.result and each.result.drift]
    before = windows.earlier(window, 1, since=promoted)
    return Past(reference, earlier, window.end - before[0].end if before else timedelta(0))


def topic_drift(questions: Sequence[str], topics: Topics, *, past: Past, least: float = LEAST_DISTANCE) -> Drift | None:
    """Whether the questions' topics differ from those of the champion's first healthy windows.

    Args:
        least: the distance from which on they do.

    Returns:
        ``None`` where there is no question.
    """
    if not questions:
        return None
    counts = Counter(topics.of(questions))
    pooled, reference = Counter(counts), Counter[str]()
    for drift in past.reference:
        if drift.topics == topics.id:
            reference.update(drift.counts)
    for drift in past.earlier:
        if drift.topics == topics.id and pooled.total() < POOLED:
            pooled.update(drift.counts)
    level = min(MOST_A_LOOK, A_MONTH * (past.elapsed / _MONTH))
    return compared(reference, pooled, level=level, least=least).model_copy(
        update={"topics": topics.id, "counts": dict(counts)}
    )


def compared(reference: Counter[str], current: Counter[str], *, level: float, least: float = LEAST_DISTANCE) -> Drift:
    """Two samples of topics held against each other: Pearson's chi-squared test of homogeneity, and a distance.

    Both samples are taken to be samples: a test that takes the reference's shares for known flags up to 80 % of windows
    in which nothing has changed. They differ where the p-value is under the level and the total variation distance, the
    share of questions that would have to be of another topic, is at least ``least``: of many questions the
    smallest difference is significant. Topics of which fewer than five are expected in either sample are taken
    together.

    Args:
        level: of this look; the levels of all looks in 30 days add up to 5 %.

    Returns:
        Without window's own counts. No p-value where one of the samples is too small to say anything.
    """
    a, b = reference.total(), current.total()
    names = sorted(reference | current)
    nothing = Drift(score=math.nan, detected=False, grown=[], level=level, n=b, reference=a)
    if a < REFERENCE or b < LEAST or len(names) < 2:
        return nothing
    table = np.array([[reference[name] for name in names], [current[name] for name in names]])
    p_value = _p_value(table)
    before, after = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(before - after).sum() / 2)
    grown = sorted(zip(names, before.tolist(), after.tolist(), strict=True), key=lambda row: row[1] - row[2])[:_GROWN]
    detected = p_value < level and distance >= least
    return nothing.model_copy(
        update={"score": p_value, "distance": distance, "detected": detected, "grown": grown, "least": least}
    )


def _p_value(table: np.ndarray) -> float:
    """Of a table of shape (2, topics); the rarest topics are taken together until enough of each are expected."""
    table = table[:, np.argsort(table.sum(axis=0))]
    expected = table.sum(axis=0) * (table.sum(axis=1).min() / table.sum())
    together = 1
    while expected[:together].sum() < _LEAST_EXPECTED and together < table.shape[1]:
        together += 1
    table = np.column_stack([table[:, :together].sum(axis=1), table[:, together:]])
    return float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0
