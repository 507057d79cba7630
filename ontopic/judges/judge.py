"""What every judge is, and what some judges can do besides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.statistics.rates import Rate

_CHUNK = 1024  # records that a judge of lists gets at a time from a stream


class Judge(Protocol):
    """Turns records into verdicts.

    Attributes:
        id: changes whenever the judge would judge differently: a digest of model, template, policy and settings.
        account: what it has used so far; a judge that asks no LLM uses nothing.
    """

    @property
    def id(self) -> str: ...

    @property
    def account(self) -> Account: ...

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        """One verdict a record, in order. A record that it cannot judge gets ``unjudged`` with the cause.

        Where a record carries a scope label, the judge takes it for granted and decides on the answer alone.

        Args:
            advance: called with the number of records judged since the last call.
        """
        ...


@runtime_checkable
class StreamingJudge(Judge, Protocol):
    """A judge that takes a stream: it asks on while the first of a chunk are still unanswered."""

    def judge_stream(self, records: Iterable[Record], advance: Advance | None = None) -> Iterator[Verdict]:
        """As ``judge``, for a stream of any length: reads a little ahead, and holds no more than that in memory."""
        ...


@runtime_checkable
class CommitteeJudge(Judge, Protocol):
    """A judge of several members."""

    def agreement(self) -> Rate:
        """Krippendorff's alpha of the members on all the records that they have judged so far."""
        ...


def judge_stream(judge: Judge, records: Iterable[Record]) -> Iterator[Verdict]:
    """One verdict a record, in order, in bounded memory: at most some 1,000 records are read ahead."""
    if isinstance(judge, StreamingJudge):
        yield from judge.judge_stream(records)
        return
    left = iter(records)
    while chunk := list(islice(left, _CHUNK)):
        yield from judge.judge(chunk)


def none_judged(n: int, cause: str | None, *, what: str = "records") -> UserError:
    """The error of a judge that judged none of ``n`` records."""
    return UserError(f"the judge judged none of the {n:,} {what}: {cause or 'no cause given'}; see to it and run again")


def agreement_of(judge: Judge) -> Rate | None:
    """How far the members of a judge agreed on all that it has judged so far; ``None`` of one without members."""
    return judge.agreement() if isinstance(judge, CommitteeJudge) else None


def outcome(*, in_scope: bool, declined: bool, on_subject: bool) -> bool:
    """Whether a record passes: in scope and answered on the subject, or out of scope and declined."""
    return not declined and on_subject if in_scope else declined
