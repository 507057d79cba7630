"""Records taken out of the traffic store; what others point at stays with these."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sql

from ontopic.records import Message
from ontopic.state.erased_files import ERASED
from ontopic.traffic.reading import ROWS, of_rows, parts
from ontopic.traffic.schema import FEEDBACK, ORIGIN, PROMPT, SHADOW, TRAFFIC
from ontopic.traffic.turns import Beside, pack


def remove(connection: sql.Connection, numbers: Sequence[int], *, erase: bool) -> None:
    """Delete records, what was thought of them, and what was answered unseen beside them; the connection may write, and
    nobody else writes meanwhile.

    What nothing refers to any more goes with them. Records that follow them in a conversation get their own copy of
    the turns that stood there.

    Args:
        numbers: the records' ``seq``.
        erase: whether these copies lack what was asked and answered in the deleted records.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    for part in parts(numbers):
        rows = connection.execute(ROWS.where(TRAFFIC.c.seq.in_(part))).all()
        _give_own_copies(connection, part, gone=_turns(rows) if erase else set())
        connection.execute(sql.delete(TRAFFIC).where(TRAFFIC.c.seq.in_(part)))
        for table in (FEEDBACK, SHADOW):
            connection.execute(sql.delete(table).where(table.c.record_id.in_([row.id for row in rows])))
        _drop_unused(connection, sorted({row.origin for row in rows if row.origin is not None}))


def _turns(rows: Sequence[sql.Row]) -> set[tuple[str, str]]:
    return {turn for row in rows for turn in (("user", row.question), ("assistant", row.answer))}


def _give_own_copies(connection: sql.Connection, leaving: Sequence[int], *, gone: set[tuple[str, str]]) -> None:
    following = ROWS.where(TRAFFIC.c.parent.in_(leaving), TRAFFIC.c.seq.not_in(leaving))
    rows = connection.execute(following).all()
    for row, record in zip(rows, of_rows(connection, rows), strict=True):
        *earlier, last = record.messages
        kept = [
            Message(role=each.role, content=ERASED) if (each.role, each.content) in gone else each for each in earlier
        ]
        messages = (*kept, last)
        packed = pack(messages, Beside(row.question, row.text or ""))
        one = sql.update(TRAFFIC).where(TRAFFIC.c.seq == row.seq)
        connection.execute(one.values(parent=None, messages=packed))


def _drop_unused(connection: sql.Connection, origins: Sequence[int]) -> None:
    if not origins:
        return
    used = sql.exists().where(TRAFFIC.c.origin == ORIGIN.c.number)
    unused = sql.and_(ORIGIN.c.number.in_(origins), ~used)
    prompts = connection.scalars(sql.select(ORIGIN.c.prompt).where(unused, ORIGIN.c.prompt.is_not(None)).distinct())
    numbers = prompts.all()
    connection.execute(sql.delete(ORIGIN).where(unused))
    if numbers:
        used = sql.exists().where(ORIGIN.c.prompt == PROMPT.c.number)
        connection.execute(sql.delete(PROMPT).where(PROMPT.c.number.in_(numbers), ~used))


def scrub(engine: sql.Engine) -> None:
    """Write the tables anew, so that nothing of what was deleted is left in the database's files."""
    statements = [f"VACUUM (FULL) {table.name}" for table in TRAFFIC.metadata.sorted_tables]
    if engine.dialect.name == "sqlite":
        statements = ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
