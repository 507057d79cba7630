"""A judge that goes by one word of the answer, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.judge import Account
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.statistics.rates import rate

# A judge that errs, so that corrected and raw score differ.
CARD = JudgeCard(
    judge_id="words",
    accuracy=rate(180, 200),
    kappa=rate(160, 200),
    sensitivity=rate(90, 100),
    specificity=rate(90, 100),
    unjudged=0,
)


@dataclass
class WordJudge:
    """Passes an answer with ``good``, fails one with ``bad``, cannot judge others; notes what it was asked.

    Attributes:
        stops_after: raises after so many records, as a killed process would stop.
    """

    id: str = "words"
    account: Account = field(default_factory=Account)
    asked: list[str] = field(default_factory=list)
    stops_after: int | None = None

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        if self.stops_after is not None and len(self.asked) + len(records) > self.stops_after:
            raise KeyboardInterrupt
        self.asked += [record.id for record in records]
        return [self._verdict(record) for record in records]

    def _verdict(self, record: Record) -> Verdict:
        if "good" in record.answer or "bad" in record.answer:
            return Verdict(
                outcome="pass" if "good" in record.answer else "fail",
                score=0.9,
                explanation=record.answer,
                judge_id=self.id,
                in_scope=True,
                declined=False,
            )
        return Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="no word")
