"""What every judge is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ontopic.endpoint.account import Account
from ontopic.progress import Advance
from ontopic.records import Record, Verdict


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


def outcome(in_scope: bool, declined: bool, *, on_subject: bool) -> bool:
    """Whether a record passes: in scope and answered on the subject, or out of scope and declined."""
    return not declined and on_subject if in_scope else declined
