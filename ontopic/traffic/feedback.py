"""What people thought of answers, beside the records of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.records import Feedback
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.reading import parts
from ontopic.traffic.redaction import redact
from ontopic.traffic.schema import FEEDBACK, ORIGIN, TRAFFIC

_TEXTS = ("comment", "correction")
_CONVERSATION = sql.func.coalesce(ORIGIN.c.conversation, TRAFFIC.c.conversation)


class Thumb(BaseModel):
    """That somebody liked an answer, or not.

    Attributes:
        conversation: that the answer is of, as in ``Record``.
    """

    model_config = ConfigDict(frozen=True)
    record_id: str
    conversation: str
    up: bool


def keep(connection: sql.Connection, feedback: Feedback, *, redacted: bool) -> bool:
    """Keep it in place of what the same key said of the same answer before; ``False`` where there is no such record.

    What is older than that changes nothing.

    Args:
        redacted: whether personal data is taken out of its texts.
    """
    texts = {name: getattr(feedback, name) for name in _TEXTS}
    if redacted:
        texts = {name: redact(text).text for name, text in texts.items()}
    if connection.dialect.name != "sqlite":  # which alone can hold a NUL
        texts = {name: text.replace("\0", "\ufffd") for name, text in texts.items()}
    values = {"thumb": feedback.thumb, "given_at": naive_utc(feedback.given_at or datetime.now(UTC)), **texts}
    if connection.scalar(sql.select(TRAFFIC.c.id).where(TRAFFIC.c.id == feedback.record_id)) is None:
        return False
    insert = insert_into(connection, FEEDBACK).values({"record_id": feedback.record_id, "by": feedback.by, **values})
    newer = insert.excluded.given_at >= FEEDBACK.c.given_at
    keys = ["record_id", "by"]
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values, where=newer))
    return True


def _on(records: sql.ColumnElement[bool]) -> sql.ColumnElement[bool]:
    """Which feedback is on such records: looked up one by one, as feedback is much less than traffic."""
    return sql.exists().where(TRAFFIC.c.id == FEEDBACK.c.record_id, records).correlate(FEEDBACK)


def given(
    connection: sql.Connection, own: sql.ColumnElement[bool], *, ids: Iterable[str] | None = None
) -> list[Feedback]:
    """What was thought of records, the newest first.

    Args:
        own: of which records.
        ids: only these; ``None`` for all.
    """
    query = sql.select(FEEDBACK).where(_on(own))
    queries = [query] if ids is None else [query.where(FEEDBACK.c.record_id.in_(part)) for part in parts(list(ids))]
    rows = [row for each in queries for row in connection.execute(each)]
    found = [Feedback.model_validate(row._asdict() | {"given_at": row.given_at.replace(tzinfo=UTC)}) for row in rows]
    return sorted(found, key=lambda each: each.given_at or datetime.min.replace(tzinfo=UTC), reverse=True)


def thumbs(connection: sql.Connection, own: sql.ColumnElement[bool], *, ids: Sequence[str]) -> list[Thumb]:
    """The thumbs on these records, in the order that they were asked."""
    query = sql.select(TRAFFIC.c.id, TRAFFIC.c.asked_at, FEEDBACK.c.thumb, _CONVERSATION.label("conversation"))
    joined = FEEDBACK.join(TRAFFIC, TRAFFIC.c.id == FEEDBACK.c.record_id)
    query = query.select_from(joined.outerjoin(ORIGIN, ORIGIN.c.number == TRAFFIC.c.origin)).where(own)
    rows = [row for part in parts(list(ids)) for row in connection.execute(query.where(TRAFFIC.c.id.in_(part)))]
    rows.sort(key=lambda row: (row.asked_at, row.id))
    return [Thumb(record_id=row.id, conversation=row.conversation, up=row.thumb == "up") for row in rows]


def thumbed(connection: sql.Connection, own: sql.ColumnElement[bool], *, since: datetime) -> list[str]:
    """The ids of the records that got a thumb at that time or later."""
    query = sql.select(FEEDBACK.c.record_id).where(FEEDBACK.c.given_at >= naive_utc(since), _on(own)).distinct()
    return list(connection.scalars(query))


def thumb_counts(
    connection: sql.Connection, own: sql.ColumnElement[bool], *, since: datetime, until: datetime
) -> Counter[str]:
    """How many thumbs are ``up`` and ``down`` on what was asked in this stretch of time, both ends included."""
    asked = TRAFFIC.c.asked_at.between(naive_utc(since), naive_utc(until))
    query = sql.select(FEEDBACK.c.thumb, sql.func.count().label("n")).where(_on(sql.and_(own, asked)))
    rows = connection.execute(query.group_by(FEEDBACK.c.thumb)).all()
    return Counter({row.thumb: row.n for row in rows})
