"""Records taken out of the traffic store, with what later requests repeat of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sql

from ontopic.records import Record
from ontopic.state.erased_files import ERASED
from ontopic.traffic.rows import record_of
from ontopic.traffic.schema import FEEDBACK, TRAFFIC


def remove(connection: sql.Connection, ids: Sequence[str], *, repeated: Sequence[Record]) -> int:
    """Delete records, and what was thought of them; returns how many.

    Args:
        ids: at most as many as a query takes.
        repeated: those of them that what later requests of their conversations repeat goes of too.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    connection.execute(sql.delete(FEEDBACK).where(FEEDBACK.c.record_id.in_(ids)))
    n = connection.execute(sql.delete(TRAFFIC).where(TRAFFIC.c.id.in_(ids))).rowcount
    gone = {turn for each in repeated for turn in (("user", each.question), ("assistant", each.answer))}
    for conversation in {record.conversation for record in repeated} - {""}:
        _erase_turns(connection, conversation, gone=gone)
    return n


def scrub(engine: sql.Engine) -> None:
    """Write the tables anew, so that nothing of what was deleted is left in the database's files."""
    statements = [f"VACUUM (FULL) {table.name}" for table in (TRAFFIC, FEEDBACK)]
    if engine.dialect.name == "sqlite":
        statements = ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"]
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _erase_turns(connection: sql.Connection, conversation: str, *, gone: set[tuple[str, str]]) -> None:
    for row in connection.execute(sql.select(TRAFFIC).where(TRAFFIC.c.conversation == conversation)).all():
        messages = [message.model_dump() for message in record_of(row).messages]
        kept = [m | {"content": ERASED} if (m["role"], m["content"]) in gone else m for m in messages[:-1]]
        if kept != messages[:-1]:
            written = json.dumps([*kept, messages[-1]], ensure_ascii=False)
            connection.execute(sql.update(TRAFFIC).where(TRAFFIC.c.id == row.id).values(messages=written))
