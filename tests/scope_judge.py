"""A judge that goes by the words of questions and answers, as the guard's judge does by what it learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ontopic.judges.judge import Account
from ontopic.progress import Advance
from ontopic.records import Record, Verdict

REFUSAL = "I can only help with banking."


@dataclass
class ScopeJudge:
    """Says of a conversation that it is in scope where any turn of the user's names a card, half so for money.

    An answer passes where it declines what is out of scope, or names a card where that is in scope; what is said in
    capitals it cannot judge.
    """

    id: str = "words-1"
    account: Account = field(default_factory=Account)
    asked: list[Record] = field(default_factory=list)

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        self.asked += records
        return [self._verdict(record) for record in records]

    def _verdict(self, record: Record) -> Verdict:
        said = " ".join([record.question, *(m.content for m in record.messages if m.role == "user")])
        if record.question.isupper():
            return Verdict(outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="it shouts")
        scope = 0.98 if "card" in said else 0.4 if "money" in said else 0.02
        in_scope, declined = scope >= 0.5, record.answer.startswith("I can only help")
        passed = ("card" in record.answer and not declined) if in_scope else declined
        score = max(scope, 0.9) if passed else min(scope, 0.1) if not in_scope else 0.05
        return Verdict(
            outcome="pass" if passed else "fail",
            score=score,
            explanation="",
            judge_id=self.id,
            in_scope=in_scope,
            declined=declined,
            scope_score=scope,
        )
