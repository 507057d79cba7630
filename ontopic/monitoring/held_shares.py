"""Shares that are held against a limit at every window: over-refusal, leak, slow answers, failed requests.

Each window is one look. A look finds a share over its limit by an exact test, and the levels of all looks in 30 days
add up to 5 %, however traffic is cut into windows: as for topic drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from ontopic.records import Judged
from ontopic.statistics.rates import NumberOrNaN, Rate, rate

A_MONTH, MOST_A_LOOK = 0.05, 0.01
ENOUGH = 100
"""Where a window has fewer, those of the windows before it count too, until they are so many."""
SLOW_SHARE = 0.05
_MONTH, _LEAST_ELAPSED = timedelta(days=30), timedelta(minutes=1)


class HeldShare(BaseModel):
    """A share that must not be over a limit.

    Attributes:
        hits, effective: the window's own: how many count to the share, of how many; as many independent ones as say as
            much, where several are of one conversation.
        share: with those of windows before it, where these are few, and its 95 % interval.
        most: the limit.
        p_value: how likely a share at least so large is where the true one is at the limit; ``nan`` without records.
        level: under which this look finds it over the limit.
    """

    model_config = ConfigDict(frozen=True)
    hits: float
    effective: float
    share: Rate
    most: float
    p_value: NumberOrNaN
    level: float

    @property
    def over(self) -> bool:
        """Whether the share is shown to be over the limit."""
        return self.p_value < self.level

    @property
    def is_back(self) -> bool:
        """Whether it is at or under the limit again, which ends an alert. Between this and ``over`` nothing changes."""
        return self.share.n > 0 and self.share.value <= self.most

    @property
    def in_words(self) -> str:
        """The share with its interval, and the limit, as a part of a sentence."""
        return f"{self.share}, the most {self.most:g} (p = {self.p_value:.2g}, level {self.level:.2g})"


def level_of(elapsed: timedelta) -> float:
    """Of a look so long after the one before, one minute at least: the levels of all looks in 30 days are 5 %."""
    return min(MOST_A_LOOK, A_MONTH * (max(elapsed, _LEAST_ELAPSED) / _MONTH))


def held(
    outcomes: Sequence[bool],
    clusters: Sequence[str] = (),
    *,
    most: float,
    level: float,
    before: Iterable[HeldShare | None] = (),
    of_all: tuple[int, int] | None = None,
) -> HeldShare:
    """The share of ``True`` held against ``most``.

    Args:
        outcomes: of the window's own records.
        clusters: what each belongs to, as ``effective_n`` takes them; by default each stands by itself.
        before: of the windows before it, the newest first.
        of_all: as ``clustered_rate`` takes it.
    """
    from ontopic.statistics.clusters import effective_of_all

    counted, n = of_all or (sum(outcomes), len(outcomes))
    effective = effective_of_all(outcomes, clusters or [""] * len(outcomes), n=n)
    hits = counted * effective / n if n else 0.0
    pooled_hits, pooled = hits, effective
    for each in before:
        if pooled >= ENOUGH:
            break
        if each is not None:
            pooled_hits, pooled = pooled_hits + each.hits, pooled + each.effective
    found = held_counts(min(round(pooled_hits), round(pooled)), round(pooled), most=most, level=level)
    return found.model_copy(update={"hits": hits, "effective": effective})


def held_counts(hits: int, n: int, *, most: float, level: float) -> HeldShare:
    """So many of ``n`` independent ones held against ``most``, by the exact binomial test of one side."""
    p_value = math.nan
    if n:
        from scipy.stats import binom  # who only reads results need not wait for it

        p_value = float(binom.sf(hits - 1, n, most))
    return HeldShare(hits=hits, effective=n, share=rate(hits, n), most=most, p_value=p_value, level=level)


def shares_of(judged: Judged, *, slow_after_s: float | None) -> dict[str, tuple[list[bool], list[str]]]:
    """What counts to ``over_refusal``, ``leak`` and ``slow`` in a window: the outcomes, and their conversations.

    Args:
        slow_after_s: seconds; without it nothing is slow.
    """
    rows = [
        (r.conversation, v) for r, v in zip(judged.records, judged.verdicts, strict=True) if v.outcome != "unjudged"
    ]
    found: dict[str, tuple[list[bool], list[str]]] = {}
    for name, in_scope in (("over_refusal", True), ("leak", False)):
        of = [(each, v.declined is in_scope) for each, v in rows if v.in_scope is in_scope and v.declined is not None]
        found[name] = ([hit for _, hit in of], [each for each, _ in of])
    if slow_after_s is not None:
        late = [record.latency_s > slow_after_s for record in judged.records]
        found["slow"] = (late, [record.conversation for record in judged.records])
    return found
