"""The chart over all records of a champion: it decides what is ``detected``, however traffic is cut into windows.

Each judged record, in the order of the questions since the champion's promotion, adds to the evidence that the
guardrail score has fallen under the policy's threshold. The alarm comes where the evidence reaches the limit, which is
the average number of records between two false alarms of a champion whose score is just at the threshold: those of 100
days of traffic at its present pace. So hourly windows raise no more false alarms than daily ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ontopic.records import EARLIEST, Judged
from ontopic.statistics.rates import Rate
from ontopic.statistics.sequential import confidence_sequence, shiryaev_roberts

if TYPE_CHECKING:
    from ontopic.statistics.correction import Errors

# How far the score may have fallen under the threshold, and how much each counts: the first decides how soon a small
# fall is found, the others see to it that a collapse is found within some twenty records. benchmarks/alarms.py
DROPS = ((0.05, 0.94), (0.10, 0.03), (0.40, 0.03))
RUN_LENGTH = timedelta(days=100)
LEAST_RECORDS = 50
_LEAST_A_DAY = 15
_TOLERATED = 0.02
_Z95_ONE_SIDED = NormalDist().inv_cdf(0.95)
_OVER = 0.01  # an alarm ends where so much of the limit is left
_DAY = timedelta(days=1)
_LEAST_SHARE, _MOST_SHARE = 0.01, 0.999


class Levels(BaseModel):
    """The shares that a judge passes: where the score is at the threshold, and where it has fallen so far.

    Attributes:
        least_records: before so many judged records nothing is detected.
    """

    model_config = ConfigDict(frozen=True)
    healthy: float
    lowered: tuple[float, ...]
    least_records: int


class Chart(BaseModel):
    """Where the chart of one model version stands after a window.

    Attributes:
        statistic: the evidence that the score has fallen under the threshold, in records.
        limit: at which the alarm is raised: the average run length, in records, of a score just at the threshold.
        alarm: raised and not over: it lasts until the champion is retrained, promoted anew or rolled back, or until the
            evidence has fallen to a hundredth of the limit.
        alarmed_at: the time of the record that raised it; ``None`` where there is no alarm.
        n: judged records since ``since``.
        since: from when on records count: the promotion, or what was done about the last alarm.
        score: the share of these records that pass, with a 95 % confidence sequence, which may be read at every window.
        healthy: the share that passes where the score is at the threshold.
        evidence: the statistic's parts, one for each fall that is looked for.
    """

    model_config = ConfigDict(frozen=True)
    statistic: float
    limit: float
    alarm: bool
    alarmed_at: datetime | None = None
    n: int
    since: datetime
    score: Rate
    healthy: float
    evidence: tuple[float, ...]

    @property
    def passes(self) -> int:
        """How many of the records pass."""
        return round(self.score.value * self.n) if self.n else 0

    @property
    def in_words(self) -> str:
        """A sentence for pages and alerts."""
        if not self.n:
            return "nothing was judged since the promotion"
        return (
            f"{self.score} of the records since {self.since:%Y-%m-%d %H:%M} UTC pass, {self.healthy:.3f} where the "
            f"score is at the threshold; evidence of a fall {self.statistic:,.0f}, the limit {self.limit:,.0f} records"
        )


Outcomes = Iterable[tuple[datetime, bool]]
"""When each judged record was asked, and whether it passes, in the order of the questions."""


def outcomes_of(judged: Judged) -> Outcomes:
    """Of judged records: those that are unjudged, or of no known time, are left out."""
    rows = zip(judged.records, judged.verdicts, strict=True)
    return [(r.asked_at, v.outcome == "pass") for r, v in rows if r.asked_at is not None and v.outcome != "unjudged"]


def carried(before: Chart | None, outcomes: Outcomes, *, since: datetime, levels: Levels | None) -> Chart | None:
    """The chart after a window's records.

    Args:
        before: of the window before it of the same version; one that began before ``since`` counts no more.
        outcomes: of the window's judged records; those asked before ``since`` are left out.
        levels: as ``levels_of`` gives them.

    Returns:
        The chart before where there are no levels.
    """
    start = before if before is not None and before.since >= since else None
    if levels is None:
        return start
    evidence = start.evidence if start and len(start.evidence) == len(DROPS) else (0.0,) * len(DROPS)
    n, passes, alarmed_at = (start.n, start.passes, start.alarmed_at) if start else (0, 0, None)
    statistic, limit = (start.statistic, start.limit) if start else (0.0, _limit(0, timedelta(0)))
    first = start.since if start else since
    for at, passed in outcomes:
        if at < since:
            continue
        if n == 0 and first == EARLIEST:
            first = at
        n, passes = n + 1, passes + passed
        evidence = shiryaev_roberts(evidence, passed=passed, healthy=levels.healthy, lowered=levels.lowered)
        statistic, limit = _mean(evidence), _limit(n, at - first)
        if alarmed_at is None and n >= levels.least_records and statistic >= limit:
            alarmed_at = at
        if alarmed_at is not None:  # more than the limit would only take longer to be over
            evidence = tuple(min(each, limit / weight) for (_, weight), each in zip(DROPS, evidence, strict=True))
            if statistic <= _OVER * limit:
                alarmed_at = None
    return Chart(
        statistic=statistic,
        limit=limit,
        alarm=alarmed_at is not None,
        alarmed_at=alarmed_at,
        n=n,
        since=first,
        score=confidence_sequence(passes, n),
        healthy=levels.healthy,
        evidence=evidence,
    )


def levels_of(threshold: float, card: Errors | None, *, least_records: int = LEAST_RECORDS) -> Levels | None:
    """What the chart holds its records against.

    The card is an estimate. Where its own error is large, the healthy share is less: the 95 % lower bound of the share
    at a score that is 0.02 over the threshold. A champion that is so good is then taken for a bad one by the card's
    error alone with one card in twenty at most.

    Args:
        threshold: the policy's, in [0, 1].
        card: of the judge on labelled traffic; where there is none, its errors are not known and taken to be none.
        least_records: the policy's.

    Returns:
        ``None`` where no share tells good from bad: at a threshold near 0, or for a judge no better than chance.
    """
    from ontopic.statistics.correction import raw_share  # numpy: who only reads results need not wait for it

    healthy, slope = raw_share(threshold, card), raw_share(1.0, card) - raw_share(0.0, card)
    if card is not None and card.sensitivity.n and card.specificity.n:
        better = min(1.0, threshold + _TOLERATED)
        spread = math.hypot(better * _error(card.sensitivity), (1 - better) * _error(card.specificity))
        healthy = min(healthy, raw_share(better, card) - _Z95_ONE_SIDED * spread)
    healthy = min(healthy, _MOST_SHARE)
    if slope <= 0 or healthy <= _LEAST_SHARE:
        return None
    lowest = min(_LEAST_SHARE, healthy / 2)
    lowered = tuple(max(lowest, healthy - slope * drop) for drop, _ in DROPS)
    return Levels(healthy=healthy, lowered=lowered, least_records=least_records)


def _error(share: Rate) -> float:
    """Standard error, with one record added of each kind, so that a share of 1 is not taken to be known."""
    value = (share.value * share.n + 1) / (share.n + 2)
    return math.sqrt(value * (1 - value) / share.n)


def _mean(evidence: Iterable[float]) -> float:
    return math.fsum(weight * each for (_, weight), each in zip(DROPS, evidence, strict=True))


def _limit(n: int, elapsed: timedelta) -> float:
    """The average run length, in records: of so many days of traffic at the pace since the chart's start."""
    return RUN_LENGTH / _DAY * max(n * (_DAY / max(elapsed, _DAY)), _LEAST_A_DAY)
