"""What one look of a canary stretch found: the counts behind its sentence, for the promotion record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from ontopic.records import Judged, Record, Verdict
from ontopic.statistics import group_sequential
from ontopic.statistics.group_sequential import LEVEL, Look, detectable_loss, look
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.scores import counted_as
from ontopic.traffic.redaction import PLACEHOLDERS


class CanaryEvidence(BaseModel):
    """A new version against its predecessor on the same requests, as one look found them: of a canary stretch, or of a
    rollout's stage.

    What is unjudged counts as not passed, on either side: it is never forgiven, and of two models that are as good and
    as often unjudged neither is favoured.

    Attributes:
        version, predecessor: which are compared.
        promoted_at: when the stretch began.
        judge_id: the judge of both.
        comparison: the paired difference of all pairs, as a description; what decides is ``look``.
        look: of the pairs of which one of the two passed, the first of each conversation: those of one conversation
            are not independent.
        looks: how many there were, this one included.
        unjudged, predecessor_unjudged: answers that could not be judged, asked twice or more.
        partly_known: requests of which the parameters are not known, and maybe nothing but the question.
        redacted: requests whose personal data was taken out, so that the predecessor got placeholders.
        detectable: at the end, how much worse the version must be for the rule to find it with 80 % power; ``None``
            where no difference would have been found, and before the end.
        records_sha256: of the records' ids, sorted, a line each.
    """

    model_config = ConfigDict(frozen=True)
    version: str
    predecessor: str
    promoted_at: datetime
    at: datetime
    judge_id: str
    comparison: Comparison
    look: Look
    looks: int
    unjudged: int
    predecessor_unjudged: int
    partly_known: int
    redacted: int
    detectable: float | None
    records_sha256: str

    def facts(self) -> dict[str, Any]:
        """The evidence as a rollback's entry in the promotion record holds it."""
        rule = {
            "name": "Haybittle-Peto, sign test of the first discordant pair of each conversation",
            "interim_level": group_sequential.interim(self.look.level),
            "level": self.look.level,
        }
        return {"canary": self.model_dump(mode="json") | {"rule": rule}}

    def __str__(self) -> str:
        pairs, at = self.comparison, self.look
        if not pairs.n:
            return f"version {self.version} was asked nothing in its canary stretch, so it was not compared"
        said = [
            f"on {pairs.n:,} questions of the traffic, version {self.version} passes {pairs.with_interval} against "
            f"version {self.predecessor} ({pairs.losses:,} lost, {pairs.wins:,} won; look {self.looks}, "
            f"{at.losses:,} of {at.discordant:,} conversations lost, p = {at.p_value:.2g}, {self._needed})"
        ]
        if self.unjudged or self.predecessor_unjudged:
            said.append(f"unjudged, so not passed: {self.unjudged:,} and {self.predecessor_unjudged:,}")
        if self.partly_known:
            said.append(f"{self.partly_known:,} were asked again with what is known of the request")
        if self.redacted:
            said.append(f"{self.redacted:,} were asked again without their personal data")
        return "; ".join(said)

    @property
    def power(self) -> str:
        """What this comparison could have found, as a sentence."""
        if self.detectable is None:
            return "So few questions could not have shown it to be worse."
        return f"Were it worse by {self.detectable:.3f}, it would have been rolled back in 4 of 5 such stretches."

    @property
    def _needed(self) -> str:
        return "no number is enough" if self.look.needed is None else f"{self.look.needed:,} are enough"


def evidence_of(
    judged: Judged,
    before: Sequence[Verdict],
    *,
    past: Sequence[CanaryEvidence],
    stretch: dict[str, Any],
    final: bool,
    level: float = LEVEL,
) -> CanaryEvidence:
    """What a look finds.

    Args:
        judged: the new champion's answers, in the order of the questions.
        before: verdicts on what the predecessor answered to the same requests.
        past: the stretch's looks until now.
        stretch: the fields of the evidence that say which stretch it is, and when.
        final: whether it is the look at the end.
        level: of all its looks, as ``group_sequential.look`` takes it.
    """
    comparison = compare(_as_fails(before), _as_fails(judged.verdicts))
    discordant, losses = _first_discordant(judged, before)
    found = look([*(each.look.discordant for each in past), discordant], losses, final=final, level=level)
    ids = sorted(record.id for record in judged.records)
    return CanaryEvidence(
        **stretch,
        comparison=comparison,
        look=found,
        looks=len(past) + 1,
        unjudged=_unjudged(judged.verdicts),
        predecessor_unjudged=_unjudged(before),
        partly_known=sum(record.parameters is None for record in judged.records),
        redacted=sum(map(_is_redacted, judged.records)),
        detectable=detectable_loss(comparison.n, comparison.wins, spent=found.spent, level=level) if final else None,
        records_sha256=hashlib.sha256("".join(f"{each}\n" for each in ids).encode()).hexdigest(),
    )


def _first_discordant(judged: Judged, before: Sequence[Verdict]) -> tuple[int, int]:
    """How many conversations have a pair of which one passed, and in how many the first such pair is a loss."""
    lost: dict[str, bool] = {}
    for record, new, old in zip(judged.records, judged.verdicts, before, strict=True):
        if (new.outcome == "pass") != (old.outcome == "pass"):
            lost.setdefault(record.conversation or record.id, old.outcome == "pass")
    return len(lost), sum(lost.values())


def _as_fails(verdicts: Sequence[Verdict]) -> list[Verdict]:
    return counted_as("fail", verdicts, in_scope=[verdict.in_scope for verdict in verdicts])


def _unjudged(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.outcome == "unjudged" for verdict in verdicts)


def _is_redacted(record: Record) -> bool:
    return any(placeholder in message["content"] for message in record.request for placeholder in PLACEHOLDERS)
