"""Records written to the traffic store, each beside what is stored of its conversation already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql

from ontopic.records import Message
from ontopic.state.database import insert_into
from ontopic.traffic.reading import conversations, parts
from ontopic.traffic.rows import Said
from ontopic.traffic.schema import ORIGIN, PROMPT, TRAFFIC
from ontopic.traffic.turns import Beside, asked_before, pack, points_at_parent, prompt_of

_LOCK = 7_264_150_932  # any number, the same in every process, and another than that of upgrades
_Key = tuple[str, str, str]  # a conversation, a question in it and its answer


@contextmanager
def writing(engine: sql.Engine, *, shared: bool) -> Iterator[sql.Connection]:
    """A transaction that reads what it writes beside; nothing is deleted meanwhile.

    Args:
        shared: whether others may add records at the same time; SQLite knows one writer at a time.
    """
    with engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            lock = sql.func.pg_advisory_xact_lock_shared if shared else sql.func.pg_advisory_xact_lock
            connection.execute(sql.select(lock(_LOCK)))
        yield connection


def write(connection: sql.Connection, said: Sequence[Said], *, known: bool) -> int:
    """Store records; the connection may write, and nobody else deletes meanwhile.

    Args:
        known: whether one whose id is stored already, or comes twice, is left out, rather than an error.

    Returns:
        How many were stored.
    """
    rows = [dict(each.row) for each in said]
    if known:
        taken = stored_ids(connection, [row["id"] for row in rows])
        first = {row["id"]: i for i, row in reversed(list(enumerate(rows)))}
        said = [each for i, each in enumerate(said) if first[each.row["id"]] == i and each.row["id"] not in taken]
        rows = [dict(each.row) for each in said]
    if not rows:
        return 0
    prompts = [prompt_of(each.messages) for each in said]
    for row, number in zip(rows, origins(connection, [each.origin for each in said], prompts=prompts), strict=True):
        row["origin"] = number
    _pack_all(connection, rows, said=said, prompts=prompts)
    insert = insert_into(connection, TRAFFIC)
    if connection.dialect.name != "sqlite":  # by one clock, whichever machine stores it: what is new is known by that
        insert = insert.values(stored_at=sql.func.timezone("utc", sql.func.clock_timestamp()))
        for row in rows:
            del row["stored_at"]
    if not known:
        connection.execute(insert, rows)
        return len(rows)
    done = connection.execute(insert.on_conflict_do_nothing(), rows, execution_options={"preserve_rowcount": True})
    return done.rowcount  # psycopg throws it away otherwise


def stored_ids(connection: sql.Connection, ids: Iterable[str]) -> set[str]:
    """Those of these ids that are stored."""
    query = sql.select(TRAFFIC.c.id)
    return {i for part in parts(list(ids)) for i in connection.scalars(query.where(TRAFFIC.c.id.in_(part)))}


def _pack_all(
    connection: sql.Connection, rows: list[dict[str, Any]], *, said: Sequence[Said], prompts: Sequence[str]
) -> None:
    """Give rows their numbers, their parents and their packed requests."""
    sought = {
        (each.conversation, *asked) for each in said if each.conversation for asked in asked_before(each.messages)
    }
    parents, newest = _stored(connection, sought)
    before = conversations(connection, {*parents.values(), *newest.values()})
    for row, each, number, prompt in zip(rows, said, _numbers(connection, len(rows)), prompts, strict=True):
        row["seq"], asked, conversation = number, each.messages, each.conversation
        parent = None
        if conversation and len(asked) > 1:
            keys = ((conversation, *earlier) for earlier in asked_before(asked))
            parent = next((parents[key] for key in keys if key in parents), newest.get(conversation))
        packed = pack(asked, Beside(row["question"], prompt, before.get(parent, ()) if parent else ()))
        if parent is not None and not points_at_parent(packed):
            parent, packed = None, pack(asked, Beside(row["question"], prompt))
        row |= {"parent": parent, "messages": packed}
        if conversation:
            parents[conversation, row["question"], row["answer"]] = newest[conversation] = number
            request = asked or (Message(role="user", content=row["question"]),)
            before[number] = (*request, Message(role="assistant", content=row["answer"]))


def _stored(connection: sql.Connection, sought: Iterable[_Key]) -> tuple[dict[_Key, int], dict[str, int]]:
    """The newest stored record of each question and answer in a conversation; and of each of these conversations."""
    wanted = set(sought)
    answers: dict[str, set[str]] = {}
    for conversation, _, answer in wanted:
        answers.setdefault(conversation, set()).add(answer)
    found: dict[_Key, int] = {}
    newest: dict[str, int] = {}
    columns = (ORIGIN.c.conversation, TRAFFIC.c.seq, TRAFFIC.c.question, TRAFFIC.c.answer)
    rows = sql.select(*columns).join(ORIGIN, ORIGIN.c.number == TRAFFIC.c.origin)
    last = sql.select(ORIGIN.c.conversation, sql.func.max(TRAFFIC.c.seq).label("seq"))
    last = last.join(ORIGIN, ORIGIN.c.number == TRAFFIC.c.origin).group_by(ORIGIN.c.conversation)
    for part in parts(sorted(answers)):
        among = ORIGIN.c.conversation.in_(part)
        newest |= {row.conversation: row.seq for row in connection.execute(last.where(among))}
        for texts in parts(sorted({answer for conversation in part for answer in answers[conversation]})):
            for row in connection.execute(rows.where(among, TRAFFIC.c.answer.in_(texts))):
                key = (row.conversation, row.question, row.answer)
                found[key] = max(row.seq, found.get(key, 0))
    return {key: number for key, number in found.items() if key in wanted}, newest


def _numbers(connection: sql.Connection, n: int) -> Sequence[int]:
    if connection.dialect.name == "sqlite":  # where this transaction alone writes
        first = int(connection.scalar(sql.select(sql.func.max(TRAFFIC.c.seq))) or 0) + 1
        return range(first, first + n)
    series = sql.text("SELECT nextval(pg_get_serial_sequence('traffic', 'seq')) FROM generate_series(1, :n)")
    return sorted(connection.scalars(series, {"n": n}))


def origins(connection: sql.Connection, told: Sequence[dict[str, Any]], *, prompts: Sequence[str]) -> list[int | None]:
    """The number of each record's origin, which is stored where it is new; ``None`` where nothing is known of it."""
    texts = [{"text": text} for text in dict.fromkeys(prompts) if text]
    numbers = dict(zip((each["text"] for each in texts), _interned(connection, PROMPT, values=texts), strict=True))
    values = [each | {"prompt": numbers.get(prompt)} for each, prompt in zip(told, prompts, strict=True)]
    found = iter(_interned(connection, ORIGIN, values=[value for value in values if any(value.values())]))
    return [next(found) if any(value.values()) else None for value in values]


def _interned(connection: sql.Connection, table: sql.Table, *, values: Sequence[dict[str, Any]]) -> list[int]:
    """The number of each row of these values; those that are missing are added."""
    digests = [hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16] for value in values]
    numbers = _numbered(connection, table, digests=digests)
    missing = {digest: value for digest, value in zip(digests, values, strict=True) if digest not in numbers}
    if missing:
        rows = [{"digest": digest} | value for digest, value in missing.items()]
        connection.execute(insert_into(connection, table).on_conflict_do_nothing(), rows)
        numbers |= _numbered(connection, table, digests=list(missing))
    return [numbers[digest] for digest in digests]


def _numbered(connection: sql.Connection, table: sql.Table, *, digests: Sequence[bytes]) -> dict[bytes, int]:
    query = sql.select(table.c.digest, table.c.number)
    return {
        bytes(row.digest): row.number
        for part in parts(list(dict.fromkeys(digests)))
        for row in connection.execute(query.where(table.c.digest.in_(part)))
    }
