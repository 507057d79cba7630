"""What the judged records of a stretch add up to, page by page: counts of all, and a few of the records themselves.

A window may hold ten million records. Its scores are counted over all of them. What needs records (conversations,
topics, languages, quantiles, the page) is of a random sample, of whole conversations: those whose hash is smallest
(bottom-k sampling, Cohen and Kaplan 2007). Where a window is no larger than that, the sample is the window.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from itertools import compress
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ontopic.records import Judged, Record, Verdict
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import Scores

MOST_KEPT = 10_000
"""The most records of a window that are in memory at once: some 50 MB."""


class Counted(NamedTuple):
    """How many of ``n`` records count."""

    hits: int
    n: int


class Totals(BaseModel):
    """What judged records add up to.

    Attributes:
        kept: the records that are in memory, at most ``MOST_KEPT``, in their order.
        n: how many there are in all; ``slow`` of these took longer than the limit.
        passes: how many of the judged ones pass.
        shares: what counts to over-refusal and leak, as in ``scores``.
        labelled: of the judged ones among the records that were asked for, by id: whether the judge passes it.
    """

    model_config = ConfigDict(frozen=True)
    kept: Judged
    n: int
    scores: Scores
    passes: int
    shares: dict[str, Counted]
    slow: int
    prompt_tokens: int
    completion_tokens: int
    labelled: dict[str, bool]

    @property
    def judged(self) -> Counted:
        """How many of the judged records pass."""
        return Counted(self.passes, self.scores.guardrail_score.n)


def add_up(
    pages: Iterable[Judged],
    *,
    labelled: Collection[str] = (),
    slow_after_s: float | None = None,
    each: Callable[[Judged], object] = lambda _: None,
    most: int = MOST_KEPT,
) -> Totals:
    """Add up pages of judged records, of which one at a time is in memory.

    Args:
        pages: in the order of the questions.
        labelled: ids of records whose verdicts are wanted one by one.
        slow_after_s: seconds; without it nothing is slow.
        each: called with each page.
        most: records that are kept.
    """
    counts, kept, verdicts_on = Counter[str](), _Kept(most), dict[str, bool]()
    for page in pages:
        each(page)
        for record, verdict in zip(page.records, page.verdicts, strict=True):
            counts.update(compress(_COUNTED, _counts(verdict)))
            counts["prompt"] += record.prompt_tokens
            counts["completion"] += record.completion_tokens
            counts["slow"] += slow_after_s is not None and record.latency_s > slow_after_s
            if record.id in labelled and verdict.outcome != "unjudged":
                verdicts_on[record.id] = verdict.outcome == "pass"
            kept.add(record, verdict)
    shares = {"over_refusal": Counted(counts["declined"], counts["inside"])}
    shares["leak"] = Counted(counts["answered"], counts["outside"])
    return Totals(
        kept=kept.judged,
        n=counts["judged"] + counts["unjudged"],
        scores=Scores(
            guardrail_score=rate(counts["pass"], counts["judged"]),
            **{name: rate(*share) for name, share in shares.items()},
            unjudged=counts["unjudged"],
        ),
        passes=counts["pass"],
        shares=shares,
        slow=counts["slow"],
        prompt_tokens=counts["prompt"],
        completion_tokens=counts["completion"],
        labelled=verdicts_on,
    )


_COUNTED = ("unjudged", "judged", "pass", "inside", "declined", "outside", "answered")


def _counts(verdict: Verdict) -> tuple[bool, ...]:
    """Which of ``_COUNTED`` a verdict counts to, as ``ontopic.statistics.scores.score`` counts it."""
    judged = verdict.outcome != "unjudged"
    known = judged and verdict.declined is not None
    inside, outside = known and verdict.in_scope is True, known and verdict.in_scope is False
    declined = bool(verdict.declined)
    return not judged, judged, verdict.outcome == "pass", inside, inside and declined, outside, outside and not declined


class _Kept:
    """The records whose conversations have the smallest hashes; halved in number when they get too many."""

    def __init__(self, most: int) -> None:
        self._most, self._below = most, 1 << 64
        self._rows: list[tuple[int, Record, Verdict]] = []

    def add(self, record: Record, verdict: Verdict) -> None:
        place = _hash(record.conversation or record.id)
        if place < self._below:
            self._rows.append((place, record, verdict))
        while len(self._rows) > self._most:
            self._below //= 2
            self._rows = [row for row in self._rows if row[0] < self._below]

    @property
    def judged(self) -> Judged:
        return Judged(records=[row[1] for row in self._rows], verdicts=[row[2] for row in self._rows])


def _hash(text: str) -> int:
    # Not that of ``is_sampled``: a sample's ids all have a small one.
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest())
