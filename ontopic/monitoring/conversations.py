"""Whole conversations: where they left the subject, and whether they came back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ontopic.data.same_question import identity
from ontopic.records import Judged, Record
from ontopic.reports.parts import Cell, Column, Table
from ontopic.statistics.rates import Rate, mean, rate

_FIRST = datetime.min.replace(tzinfo=UTC)


class Conversations(BaseModel):
    """Conversations by the scope of their questions, as a judge sees it.

    Attributes:
        n: conversations of at least two questions whose scope is known; no other counts.
        left: the share that left the subject: a question of it is out of scope. ``began_outside``: how many of these
            did so with the first that is known.
        left_at: how many left it with which question of theirs, counted from 1.
        turn: the mean of that.
        back: the share of those that left which came back: a later question is in scope.
    """

    model_config = ConfigDict(frozen=True)
    n: int
    left: Rate
    began_outside: int
    left_at: dict[int, int]
    turn: Rate
    back: Rate

    def metrics(self) -> dict[str, float]:
        """The numbers by name, for MLflow; what is not known is left out."""
        found = {"conversations": float(self.n)}
        for name, share in (("left", self.left), ("back", self.back)):
            if share.n:
                found |= {f"conversations_{name}{end}": getattr(share, of) for end, of in _ENDS.items()}
        return found | ({"conversations_left_turn": self.turn.value} if self.turn.n else {})


_ENDS = {"": "value", "_low": "low", "_high": "high"}


class _Turn(NamedTuple):
    number: int  # from 1
    in_scope: bool | None


def conversations_of(judged: Judged) -> Conversations | None:
    """What became of the conversations in judged traffic; ``None`` where none of them has two known questions."""
    rows: dict[str, list[tuple[Record, bool | None]]] = defaultdict(list)
    for record, verdict in zip(judged.records, judged.verdicts, strict=True):
        if record.conversation:
            rows[record.conversation].append((record, verdict.in_scope))
    found = [chat for of_one in rows.values() for chat in _chats(of_one)]
    known = [[turn for turn in chat if turn.in_scope is not None] for chat in found]
    chats = [chat for chat in known if len(chat) > 1]
    if not chats:
        return None
    strayed = [chat for chat in chats if not all(turn.in_scope for turn in chat)]
    left = [next(turn.number for turn in chat if not turn.in_scope) for chat in strayed]
    back = [any(t.in_scope and t.number > away for t in chat) for chat, away in zip(strayed, left, strict=True)]
    return Conversations(
        n=len(chats),
        left=rate(len(left), len(chats)),
        began_outside=sum(not chat[0].in_scope for chat in strayed),
        left_at=dict(sorted(Counter(left).items())),
        turn=mean(left),
        back=rate(sum(back), len(back)),
    )


def _chats(rows: Sequence[tuple[Record, bool | None]]) -> list[list[_Turn]]:
    """The chats among the records of one conversation's id, each in its order.

    An id that was made of how a chat begins is the same for all that begin with the same word, such as a greeting: what
    was asked before a question tells these apart. Where the records begin differently, the id is the client's own, and
    their time gives the order: it may send no history, or the end of it.
    """
    ordered = sorted(rows, key=lambda row: (row[0].asked_at or _FIRST, row[0].id))
    scopes: dict[tuple[str, ...], bool | None] = {}
    for record, in_scope in ordered:
        asked = tuple(identity([message]) for message in record.request if message["role"] == "user")
        if in_scope is not None or asked not in scopes:  # of several answers to one request the newest that is judged
            scopes[asked] = in_scope
    if len({asked[:1] for asked in scopes}) > 1:
        return [[_Turn(number, in_scope) for number, in_scope in enumerate(scopes.values(), start=1)]]
    earlier = {asked[:n] for asked in scopes for n in range(1, len(asked))}
    return [
        [_Turn(n, scopes[asked[:n]]) for n in range(1, len(asked) + 1) if asked[:n] in scopes]
        for asked in scopes
        if asked not in earlier
    ]


def conversations_table(found: Conversations) -> Table:
    """The numbers on a page."""
    turns = ", ".join(f"{n:,} with question {turn}" for turn, n in found.left_at.items())
    rows: list[list[Cell]] = [
        ["conversations of two questions or more", found.n],
        ["left the subject", found.left],
        ["began outside it", f"{found.began_outside:,} of these"],
        ["left it", turns or "none"],
        ["mean question at which they left", found.turn.with_interval if found.turn.n > 1 else None],
        ["came back, of those that left", found.back],
    ]
    return Table(
        caption="Whole conversations, by the scope of their questions",
        columns=[Column(name="What"), Column(name="How many")],
        rows=rows,
    )
