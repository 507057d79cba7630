"""Stored rows as records, their requests put together from the records that they point at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sql

from ontopic.records import Message, Record
from ontopic.traffic.rows import record_of
from ontopic.traffic.schema import ORIGIN, PROMPT, TRAFFIC
from ontopic.traffic.turns import Beside, unpack

IDS_A_QUERY = 450
"""SQLite before 3.32 binds at most 999 parameters, and some queries take two lists."""

_WITH_ORIGIN = TRAFFIC.outerjoin(ORIGIN, ORIGIN.c.number == TRAFFIC.c.origin)
_WITH_ORIGIN = _WITH_ORIGIN.outerjoin(PROMPT, PROMPT.c.number == ORIGIN.c.prompt)
_OF_REQUEST = (TRAFFIC.c.seq, TRAFFIC.c.parent, TRAFFIC.c.question, TRAFFIC.c.answer, TRAFFIC.c.messages, PROMPT.c.text)
_OWN_TEXT = ("parameters", "conversation")  # of a process of an older release

ROWS: sql.Select[Any] = sql.select(
    *(column for column in TRAFFIC.c if column.name not in _OWN_TEXT),
    *(sql.func.coalesce(ORIGIN.c[name], TRAFFIC.c[name]).label(name) for name in _OWN_TEXT),
    ORIGIN.c.user,
    ORIGIN.c.key,
    ORIGIN.c.metadata,
    PROMPT.c.text,
).select_from(_WITH_ORIGIN)
"""All of the records; what ``records`` reads is a restriction of it."""


def records(connection: sql.Connection, query: sql.Select[Any]) -> list[Record]:
    """What a restriction of ``ROWS`` finds, in its order."""
    return of_rows(connection, connection.execute(query).all())


def of_rows(connection: sql.Connection, rows: Sequence[sql.Row[Any]]) -> list[Record]:
    """The records of rows of ``ROWS``."""
    before = conversations(connection, [row.parent for row in rows if row.parent is not None])
    return [
        record_of(row, unpack(row.messages, Beside(row.question, row.text or "", before.get(row.parent, ()))))
        for row in rows
    ]


def conversations(connection: sql.Connection, numbers: Iterable[int]) -> dict[int, tuple[Message, ...]]:
    """The request of each of these records, and its answer after it, by ``seq``; one that is not there is left out."""
    rows = {row.seq: row for part in parts(sorted(set(numbers))) for row in connection.execute(_with_parents(part))}
    found: dict[int, tuple[Message, ...]] = {}
    for number in sorted(rows):  # a parent was stored before
        row = rows[number]
        beside = Beside(row.question, row.text or "", found.get(row.parent, ()))
        asked = unpack(row.messages, beside) or (Message(role="user", content=row.question),)
        found[number] = (*asked, Message(role="assistant", content=row.answer))
    return found


def _with_parents(numbers: Sequence[int]) -> sql.Select[Any]:
    """What is stored of the requests of these records and of all that they point at, directly or not."""
    chain = sql.select(TRAFFIC.c.seq, TRAFFIC.c.parent).where(TRAFFIC.c.seq.in_(numbers)).cte("chain", recursive=True)
    above = TRAFFIC.alias("above")
    chain = chain.union(sql.select(above.c.seq, above.c.parent).where(above.c.seq == chain.c.parent))
    return sql.select(*_OF_REQUEST).select_from(_WITH_ORIGIN.join(chain, chain.c.seq == TRAFFIC.c.seq))


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """As many at a time as one query takes."""
    return (values[start : start + IDS_A_QUERY] for start in range(0, len(values), IDS_A_QUERY))
