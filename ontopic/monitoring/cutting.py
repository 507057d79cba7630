"""Which window a record goes into: records that wait are cut into windows, late ones find theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sql
from sqlalchemy.dialects.sqlite import insert

from ontopic.monitoring.tables import GIVEN, MEMBERS, WINDOWS
from ontopic.records import EARLIEST
from ontopic.state.sqlite_file import naive_utc

if TYPE_CHECKING:
    from ontopic.monitoring.window import Cut
    from ontopic.records import Record

EPOCH = datetime(1970, 1, 1)  # naive, as the columns are
_OF_WATCHED = WINDOWS.c.id.not_in(sql.select(GIVEN.c.window_id))


def cut_waiting(connection: sql.Connection, cut: Cut, *, until: datetime) -> None:
    """Cut the records that are in no window yet into those windows whose end is not after ``until``."""
    waiting = sql.select(MEMBERS.c.model_version).where(MEMBERS.c.window_id.is_(None)).distinct()
    for version in connection.scalars(waiting).all():
        if cut.length is not None:
            _cut_by_time(connection, version, length=cut.length, until=until)
        else:
            _cut_by_count(connection, version, records=cut.records, until=until)


def _open(version: str) -> sql.ColumnElement[bool]:
    """A version's records that are in no window, without those of a time before which no page can be drawn."""
    return sql.and_(
        MEMBERS.c.window_id.is_(None), MEMBERS.c.model_version == version, MEMBERS.c.asked_at >= naive_utc(EARLIEST)
    )


def _cut_by_time(connection: sql.Connection, version: str, *, length: timedelta, until: datetime) -> None:
    # A record after that can be in no window yet; one of the year 9999 could not even be given one.
    open_ = sql.and_(_open(version), MEMBERS.c.asked_at <= until)
    while True:
        first = connection.scalar(sql.select(sql.func.min(MEMBERS.c.asked_at)).where(open_))
        if first is None or _start(first, length) + length > until:
            return
        start = _start(first, length)
        window_id = _new(connection, version, start=start, end=start + length)
        inside = sql.and_(open_, MEMBERS.c.asked_at < start + length)
        connection.execute(sql.update(MEMBERS).where(inside).values(window_id=window_id))


def _cut_by_count(connection: sql.Connection, version: str, *, records: int, until: datetime) -> None:
    open_ = _open(version)
    times = sql.select(MEMBERS.c.asked_at).where(open_).order_by(MEMBERS.c.asked_at, MEMBERS.c.record_id)
    while True:
        first = connection.scalar(times.limit(1))
        last = connection.scalar(times.offset(records - 1).limit(1))
        if first is None or last is None or last > until:
            return
        window_id = _new(connection, version, start=first, end=last)
        inside = sql.and_(open_, MEMBERS.c.asked_at <= last)
        connection.execute(sql.update(MEMBERS).where(inside).values(window_id=window_id))


def cut_given(connection: sql.Connection, records: Iterable[Record], *, size: int) -> None:
    """Put records that are in no window into new windows of ``size`` of them, the last of a version maybe smaller.

    Records of one version that were asked at the same time stay together. A window of these records that is there
    already, its members forgotten, gets them back.
    """
    for version, same in groupby(sorted(records, key=_version_and_time), key=lambda record: record.model_version):
        for part in _parts(list(same), size):
            times = [naive_utc(record.asked_at) for record in part if record.asked_at]
            window_id = _new(connection, version, start=times[0], end=times[-1])
            connection.execute(insert(GIVEN).values(window_id=window_id).on_conflict_do_nothing())
            rows = [
                {"record_id": record.id, "model_version": version, "asked_at": at, "window_id": window_id}
                | {"late": False, "counted": True}
                for record, at in zip(part, times, strict=True)
            ]
            waiting = insert(MEMBERS).on_conflict_do_update(
                index_elements=["record_id"], set_={"window_id": window_id}, where=MEMBERS.c.window_id.is_(None)
            )
            connection.execute(waiting, rows)


def _parts(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    start = 0
    while start < len(records):
        end = min(start + size, len(records))
        while end < len(records) and records[end].asked_at == records[end - 1].asked_at:
            end += 1
        yield records[start:end]
        start = end


def _version_and_time(record: Record) -> tuple[str, datetime, str]:
    return record.model_version, naive_utc(record.asked_at) if record.asked_at else EPOCH, record.id


def place_late(connection: sql.Connection, row: dict[str, Any], *, cut: Cut, now: datetime) -> dict[str, Any]:
    """A new record's row, with the window that was cut without it, if any; a closed one is reopened.

    Args:
        now: naive, in UTC.
    """
    window = _late_for(connection, row, cut=cut)
    if window is None:
        return row
    if window.state == "closed":
        opened = sql.update(WINDOWS).where(WINDOWS.c.id == window.id)
        connection.execute(opened.values(state="reopened", reopened_at=now))
    return row | {"window_id": window.id, "late": window.state != "due", "counted": window.state != "final"}


def _late_for(connection: sql.Connection, row: dict[str, Any], *, cut: Cut) -> Any:
    windows = sql.select(WINDOWS).where(WINDOWS.c.model_version == row["model_version"], _OF_WATCHED)
    if cut.length is not None:
        # Where nothing was asked then until now, its window is cut and closed as any other.
        start = _start(row["asked_at"], cut.length)
        return connection.execute(windows.where(WINDOWS.c.start == start)).first()
    before = windows.where(WINDOWS.c.start <= row["asked_at"]).order_by(WINDOWS.c.start.desc()).limit(1)
    return connection.execute(before).first() or connection.execute(windows.order_by(WINDOWS.c.start)).first()


def last_ends(connection: sql.Connection) -> dict[str, datetime]:
    """Until when each model version's watched traffic has been cut."""
    ends = sql.select(WINDOWS.c.model_version, sql.func.max(WINDOWS.c.end)).where(_OF_WATCHED)
    return {row[0]: row[1] for row in connection.execute(ends.group_by(WINDOWS.c.model_version))}


def _new(connection: sql.Connection, version: str, *, start: datetime, end: datetime) -> int:
    """A new window, or the one that this version has of that start."""
    row = {"model_version": version, "start": start, "end": end, "state": "due"}
    added = insert(WINDOWS).values(row).on_conflict_do_nothing().returning(WINDOWS.c.id)
    found = connection.execute(added).scalar()
    if found is None:
        same = sql.and_(WINDOWS.c.model_version == version, WINDOWS.c.start == start)
        found = connection.execute(sql.select(WINDOWS.c.id).where(same)).scalar_one()
    return int(found)


def _start(asked_at: datetime, length: timedelta) -> datetime:
    return asked_at - (asked_at - EPOCH) % length
