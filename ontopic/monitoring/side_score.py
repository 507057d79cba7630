"""What a judge beside the one that gates says of the same traffic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ontopic.statistics.rates import Rate


class SideScore(BaseModel):
    """One such judge's verdicts on a stretch of traffic. It decides nothing, and its error is not taken out.

    Attributes:
        name: as the configuration calls it.
        judge_id: empty where it could not be opened.
        score: the share of the judged records that pass; its interval counts records of one conversation as alike.
        sampled: how many records it was given, and ``unjudged`` how many of these it did not judge.
        cause: the most frequent one why not; empty where all were judged.
        card: how good it is on the policy's labelled records, in words; empty where that was not measured.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    judge_id: str
    score: Rate
    sampled: int
    unjudged: int
    cause: str = ""
    card: str = ""

    @property
    def in_words(self) -> str:
        """The score with its interval, and how many were not judged and why."""
        score = str(self.score) if self.score.n else "no record was judged"
        return score + (f"; {self.unjudged:,} unjudged: {self.cause}" if self.unjudged else "")

    def metrics(self) -> dict[str, float]:
        """For a tracker: the share as ``beside_NAME`` with ``_low``, ``_high`` and ``_n``, and ``_unjudged``."""
        given = {"": self.score.value, "_low": self.score.low, "_high": self.score.high} if self.score.n else {}
        given |= {"_n": self.score.n, "_unjudged": self.unjudged}
        return {f"beside_{self.name}{part}": value for part, value in given.items()}
