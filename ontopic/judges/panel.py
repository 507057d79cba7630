"""The panel: several judges, and a rule that makes their votes one verdict."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.judge import Judge
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.statistics.agreement import Votes, agreement_of_votes, votes
from ontopic.statistics.rates import Rate

Rule = Literal["majority", "unanimous"]

_JUST_BELOW_HALF = math.nextafter(0.5, 0.0)


class PanelJudge:
    """Several judges that vote.

    ``majority``: the outcome that most of those that judged the record gave it; a tie is ``unjudged``. ``unanimous``:
    ``pass`` where all of those that judged it pass it, ``fail`` where one of them fails it. Under both rules more than
    half of the panel must have judged a record, or it is ``unjudged``: members that break never leave the decision to
    the rest unnoticed.

    The score is the mean of the members' scores, held on the outcome's side of 0.5. Scope and declination are what most
    of those with an opinion say, ``None`` for a tie.

    Args:
        judges: their order is the order in the explanation, and makes no difference to verdict or id.

    Raises:
        UserError: fewer than two judges, or the same one twice.
    """

    def __init__(self, rule: Rule, judges: Sequence[Judge]) -> None:
        ids = [judge.id for judge in judges]
        if len(ids) < 2:
            raise UserError("a panel needs at least two judges; add one to 'judges' of the panel's settings")
        if twice := [name for name, count in Counter(ids).items() if count > 1]:
            raise UserError(f"the panel holds the judge {twice[0]} twice, which gives it two votes; remove one")
        self.rule, self.judges = rule, tuple(judges)
        digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:12]
        self.id = f"panel-{rule}-{digest}"
        self._votes: Counter[Votes] = Counter()

    @property
    def account(self) -> Account:
        """The members' accounts added up; no cost where a member that asked an LLM does not know its own."""
        accounts = [judge.account for judge in self.judges]
        unknown = any(a.usd is None and a.requests for a in accounts) or all(a.usd is None for a in accounts)
        return Account(
            requests=sum(a.requests for a in accounts),
            prompt_tokens=sum(a.prompt_tokens for a in accounts),
            completion_tokens=sum(a.completion_tokens for a in accounts),
            cached=sum(a.cached for a in accounts),
            usd=None if unknown else sum(a.usd or 0.0 for a in accounts),
        )

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        """See ``Judge.judge``. The members judge one after the other; ``advance`` gets their mean progress."""
        parts = 0

        def member_advance(more: int, /) -> None:
            nonlocal parts
            before, parts = parts // len(self.judges), parts + more
            if advance and (done := parts // len(self.judges) - before):
                advance(done)

        rows = list(zip(*(judge.judge(records, member_advance) for judge in self.judges), strict=True))
        self._votes.update(votes(row) for row in rows)
        return [self._verdict(row) for row in rows]

    def agreement(self) -> Rate:
        """Krippendorff's alpha of the members on all the records that the panel has judged so far."""
        return agreement_of_votes(self._votes)

    def _verdict(self, said: Sequence[Verdict]) -> Verdict:
        passes, fails = votes(said)
        judged = [v for v in said if v.outcome != "unjudged"]
        in_detail = "; ".join(
            f"{v.judge_id}: {v.outcome}, {v.explanation or v.cause or 'no reason given'}" for v in said
        )
        if 2 * len(judged) <= len(said):
            causes = "; ".join(f"{v.judge_id}: {v.cause}" for v in said if v.outcome == "unjudged")
            return self._unjudged(in_detail, f"only {len(judged)} of {len(said)} judges could judge it ({causes})")
        if self.rule == "majority" and passes == fails:
            return self._unjudged(in_detail, f"the judges are split, {passes} to {fails}")
        passed = passes > fails if self.rule == "majority" else fails == 0
        scores = [v.score for v in judged if v.score is not None]
        score = sum(scores) / len(scores) if scores else float(passed)
        return Verdict(
            outcome="pass" if passed else "fail",
            score=max(score, 0.5) if passed else min(score, _JUST_BELOW_HALF),
            explanation=f"{passes} of {len(judged)} pass it. {in_detail}",
            judge_id=self.id,
            in_scope=_most([v.in_scope for v in judged]),
            declined=_most([v.declined for v in judged]),
        )

    def _unjudged(self, explanation: str, cause: str) -> Verdict:
        return Verdict(outcome="unjudged", score=None, explanation=explanation, judge_id=self.id, cause=cause)


def _most(opinions: Sequence[bool | None]) -> bool | None:
    yes, no = opinions.count(True), opinions.count(False)
    return None if yes == no else yes > no
