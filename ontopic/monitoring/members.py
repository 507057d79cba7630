"""The records of a window by the page, as the windows' tables name them, and which of them are in a sample."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql

from ontopic.monitoring.tables import MEMBERS
from ontopic.records import Verdict

PAGE = 1000


def member_pages(
    engine: sql.Engine, which: sql.ColumnElement[bool], *columns: sql.Column[Any]
) -> Iterator[Sequence[sql.Row[Any]]]:
    """Members in the order of their questions, a page at a time, while others go on writing.

    Args:
        which: of them.
        columns: besides ``asked_at`` and ``record_id``.
    """
    place = sql.tuple_(MEMBERS.c.asked_at, MEMBERS.c.record_id)
    query = sql.select(MEMBERS.c.asked_at, MEMBERS.c.record_id, *columns).where(which)
    query = query.order_by(MEMBERS.c.asked_at, MEMBERS.c.record_id).limit(PAGE)
    after: tuple[datetime, str] | None = None
    while True:
        beyond = sql.true() if after is None else place > sql.tuple_(*map(sql.literal, after))
        with engine.connect() as connection:
            rows = connection.execute(query.where(beyond)).all()
        if rows:
            yield rows
        if len(rows) < PAGE:
            return
        after = (rows[-1].asked_at, rows[-1].record_id)


def outcomes_in(engine: sql.Engine, which: sql.ColumnElement[bool]) -> Iterator[tuple[datetime, bool]]:
    """When the judged ones of these members were asked, and whether they pass, in the order of the questions."""
    for rows in member_pages(engine, which, MEMBERS.c.verdict):
        for row in rows:
            if (outcome := Verdict.model_validate_json(row.verdict).outcome) != "unjudged":
                yield row.asked_at.replace(tzinfo=UTC), outcome == "pass"


def is_sampled(record_id: str, sampling_rate: float) -> bool:
    """Whether a record is in the sample: by its id's hash, so that the same ones are at every call.

    A smaller sample is a part of each larger one.
    """
    return _place(record_id) < sampling_rate * 2**64


def at_random(ids: Iterator[str], most: int) -> list[str]:
    """So many of the ids, the same ones at every call; all of them where they are no more."""
    return heapq.nsmallest(most, ids, key=_place)


def _place(record_id: str) -> int:
    return int.from_bytes(hashlib.sha256(record_id.encode()).digest()[:8])
