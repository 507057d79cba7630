"""Which window a record goes into: records that wait are cut into windows, late ones find theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sql

from ontopic.monitoring.tables import GIVEN, MEMBERS, WINDOWS
from ontopic.records import EARLIEST
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import naive_utc

if TYPE_CHECKING:
    from ontopic.monitoring.window import Cut
    from ontopic.records import Record

EPOCH = datetime(1970, 1, 1)  # naive, as the columns are
_OF_WATCHED = WINDOWS.c.id.not_in(sql.select(GIVEN.c.window_id))


class Answering(NamedTuple):
    """Whose answers a window holds: those of one version of one registered model."""

    registered_model: str
    model_version: str

    def among(self, table: sql.Table) -> sql.ColumnElement[bool]:
        """Which rows of windows or of members are its."""
        return sql.and_(table.c.registered_model == self.registered_model, table.c.model_version == self.model_version)

    @property
    def open_(self) -> sql.ColumnElement[bool]:
        """Which members wait for a window, without those of a time before which no page can be drawn."""
        in_time = MEMBERS.c.asked_at >= naive_utc(EARLIEST)
        return sql.and_(MEMBERS.c.window_id.is_(None), in_time, self.among(MEMBERS))


def cut_waiting(connection: sql.Connection, registered_model: str, *, cut: Cut, until: datetime) -> None:
    """Cut the records that are in no window yet into those windows whose end is not after ``until``."""
    waiting = sql.select(MEMBERS.c.model_version).distinct()
    waiting = waiting.where(MEMBERS.c.window_id.is_(None), MEMBERS.c.registered_model == registered_model)
    for version in connection.scalars(waiting).all():
        answering = Answering(registered_model, version)
        if cut.length is not None:
            _cut_by_time(connection, answering, length=cut.length, until=until)
        else:
            _cut_by_count(connection, answering, records=cut.records, until=until)


def _cut_by_time(connection: sql.Connection, answering: Answering, *, length: timedelta, until: datetime) -> None:
    # A record after that can be in no window yet; one of the year 9999 could not even be given one.
    open_ = sql.and_(answering.open_, MEMBERS.c.asked_at <= until)
    while True:
        first = connection.scalar(sql.select(sql.func.min(MEMBERS.c.asked_at)).where(open_))
        if first is None or _start(first, length) + length > until:
            return
        start = _start(first, length)
        window_id = _new(connection, answering, start=start, end=start + length)
        inside = sql.and_(answering.open_, MEMBERS.c.asked_at < start + length)
        connection.execute(sql.update(MEMBERS).where(inside).values(window_id=window_id))


def _cut_by_count(connection: sql.Connection, answering: Answering, *, records: int, until: datetime) -> None:
    times = sql.select(MEMBERS.c.asked_at).where(answering.open_).order_by(MEMBERS.c.asked_at, MEMBERS.c.record_id)
    while True:
        first = connection.scalar(times.limit(1))
        last = connection.scalar(times.offset(records - 1).limit(1))
        if first is None or last is None or last > until:
            return
        window_id = _new(connection, answering, start=first, end=last)
        inside = sql.and_(answering.open_, MEMBERS.c.asked_at <= last)
        connection.execute(sql.update(MEMBERS).where(inside).values(window_id=window_id))


def cut_given(connection: sql.Connection, records: Iterable[Record], *, size: int) -> None:
    """Put records that are in no window into new windows of ``size`` of them, the last of a version maybe smaller.

    Records of one version that were asked at the same time stay together. A window of these records that is there
    already, its members forgotten, gets them back.
    """
    for answering, same in groupby(sorted(records, key=_answering_and_time), key=_answering):
        for part in _parts(list(same), size):
            times = [naive_utc(record.asked_at) for record in part if record.asked_at]
            window_id = _new(connection, answering, start=times[0], end=times[-1])
            connection.execute(insert_into(connection, GIVEN).values(window_id=window_id).on_conflict_do_nothing())
            rows = [
                {"record_id": record.id, "asked_at": at, "window_id": window_id, "late": False, "counted": True}
                | answering._asdict()
                for record, at in zip(part, times, strict=True)
            ]
            waiting = insert_into(connection, MEMBERS).on_conflict_do_update(
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


def _answering(record: Record) -> Answering:
    return Answering(record.registered_model, record.model_version)


def _answering_and_time(record: Record) -> tuple[Answering, datetime, str]:
    return _answering(record), naive_utc(record.asked_at) if record.asked_at else EPOCH, record.id


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
    answering = Answering(row["registered_model"], row["model_version"])
    windows = sql.select(WINDOWS).where(answering.among(WINDOWS), _OF_WATCHED)
    if cut.length is not None:
        # Where nothing was asked then until now, its window is cut and closed as any other.
        start = _start(row["asked_at"], cut.length)
        return connection.execute(windows.where(WINDOWS.c.start == start)).first()
    before = windows.where(WINDOWS.c.start <= row["asked_at"]).order_by(WINDOWS.c.start.desc()).limit(1)
    return connection.execute(before).first() or connection.execute(windows.order_by(WINDOWS.c.start)).first()


def last_ends(connection: sql.Connection, registered_model: str) -> dict[str, datetime]:
    """Until when each version's watched traffic has been cut."""
    ends = sql.select(WINDOWS.c.model_version, sql.func.max(WINDOWS.c.end))
    ends = ends.where(WINDOWS.c.registered_model == registered_model, _OF_WATCHED)
    return {row[0]: row[1] for row in connection.execute(ends.group_by(WINDOWS.c.model_version))}


def _new(connection: sql.Connection, answering: Answering, *, start: datetime, end: datetime) -> int:
    """A new window, or the one that this version has of that start."""
    row = {**answering._asdict(), "start": start, "end": end, "state": "due"}
    added = insert_into(connection, WINDOWS).values(row).on_conflict_do_nothing().returning(WINDOWS.c.id)
    found = connection.execute(added).scalar()
    if found is None:
        same = sql.and_(answering.among(WINDOWS), WINDOWS.c.start == start)
        found = connection.execute(sql.select(WINDOWS.c.id).where(same)).scalar_one()
    return int(found)


def _start(asked_at: datetime, length: timedelta) -> datetime:
    return asked_at - (asked_at - EPOCH) % length
