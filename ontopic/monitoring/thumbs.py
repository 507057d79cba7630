"""What people thought of answers: a rate beside the judge's, which the judge has no part in.

Who gives a thumb is no random sample, and a customer can dislike a right refusal, so thumbs correct no score and change
no status. But where most of many thumbs are down something is wrong that the judge may not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Rate

if TYPE_CHECKING:
    from ontopic.traffic.store import TrafficStore

LEAST_THUMBS = 20
"""Fewer thumbs raise no alert, whatever they say: a handful can be one person's."""


class Thumbs(BaseModel):
    """The thumbs on a version's answers.

    Attributes:
        liked: the share of the thumbs on a window's records that are up; its interval counts those on answers of one
            conversation as alike.
        since: the same of all that the version answered from its promotion to the window's end, with a 95 % confidence
            sequence, which may be read at every window.
        least: the policy's ``least_liked``.
    """

    model_config = ConfigDict(frozen=True)
    liked: Rate
    since: Rate
    least: float

    @property
    def disliked(self) -> bool:
        """Whether less than ``least`` of the version's thumbs are up, for certain and of enough."""
        return self.since.n >= LEAST_THUMBS and self.since.high < self.least

    @property
    def in_words(self) -> str:
        """Both rates, and the limit, as a part of a sentence."""
        own = f"{self.liked} of the thumbs on its records are up" if self.liked.n else "no thumb on its records"
        return f"{own}; {self.since} of all since the promotion, the least that is liked {self.least:g}"


def thumbs_of(
    traffic: TrafficStore, ids: Iterable[Sequence[str]], *, version: str, since: datetime, until: datetime, least: float
) -> Thumbs | None:
    """The thumbs on these records, and on all that their version was asked from ``since`` to ``until``; ``None`` where
    there is none of both.

    Args:
        ids: by the page.
    """
    counts = traffic.thumb_counts(version, since, until=until)
    liked = liked_of(traffic, ids)
    if not (counts or liked.n):
        return None
    from ontopic.statistics.sequential import confidence_sequence

    return Thumbs(liked=liked, since=confidence_sequence(counts["up"], counts.total()), least=least)


def liked_of(traffic: TrafficStore, ids: Iterable[Sequence[str]]) -> Rate:
    """The share of the thumbs on these records that are up.

    Args:
        ids: by the page.
    """
    from ontopic.statistics.clusters import clustered_rate

    thumbs = [thumb for page in ids for thumb in traffic.thumbs(page)]
    return clustered_rate([thumb.up for thumb in thumbs], [thumb.conversation for thumb in thumbs])


def liked_metrics(liked: Rate) -> dict[str, float]:
    """For a tracker: ``thumbs_up`` with ``_low``, ``_high`` and ``_n``; nothing where there is no thumb."""
    if not liked.n:
        return {}
    return {"thumbs_up": liked.value, "thumbs_up_low": liked.low, "thumbs_up_high": liked.high, "thumbs_up_n": liked.n}
