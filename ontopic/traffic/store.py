"""The traffic store: every question that a served model was asked, and its answer."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import SQLAlchemyError

from ontopic.records import MOST_AHEAD, Feedback, Record
from ontopic.state.database import database_name, let_go, not_opened
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.feedback import Thumb, given, keep, thumb_counts, thumbed, thumbs
from ontopic.traffic.reading import ROWS, of_rows, parts, records
from ontopic.traffic.redaction import redact
from ontopic.traffic.removal import remove, scrub
from ontopic.traffic.rows import Said, said_by
from ontopic.traffic.schema import MIGRATIONS, ORIGIN, TRAFFIC, open_database
from ontopic.traffic.shadow import ShadowAnswer, read_shadow, write_shadow
from ontopic.traffic.summary import TrafficSummary, hours_of, summarise
from ontopic.traffic.writing import write, writing

_PAGE = 1000
_ARRIVAL = ("asked_at", "model_version", "stored_at")


class Arrival(BaseModel):
    """That a record was stored: its id, the time of its question (UTC) and the version that answered it."""

    model_config = ConfigDict(frozen=True)
    id: str
    asked_at: datetime
    model_version: str


class TrafficStore:
    """Records in a SQL database; several threads and processes may use the same one at once.

    A record's id is its own among those of all registered models. All else is by registered model: what is read,
    counted and pruned is what the versions of one answered.

    Personal data is replaced by placeholders before anything is written (``redaction``, best effort), and how
    much of each kind is kept on the record.

    Args:
        url_or_path: the path of an SQLite file, or the URL of an SQLite or PostgreSQL database (recognised by its
            ``://``). File, folder and table are created where missing; a store of an older release is upgraded.
        registered_model: the one. Added records that name none are its own. ``None`` for all of them, as they are.
        redacted: whether personal data is taken out.

    Raises:
        UserError: the file or database cannot be opened, is not a database, or is of a newer release; or PostgreSQL's
            driver is not installed.
    """

    def __init__(self, url_or_path: str | Path, registered_model: str | None = None, *, redacted: bool = True) -> None:
        self.registered_model, self.name = registered_model, database_name(url_or_path)
        self._redacted = redacted
        try:
            self._engine, self._writing = open_database(url_or_path)
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise not_opened(error, what=MIGRATIONS.what, name=self.name) from error
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._own = TRAFFIC.c.registered_model == registered_model if registered_model is not None else sql.true()

    def add(self, record: Record) -> str:
        """Store ``record``; it is on disk when this returns.

        A record without an id gets one (a uuid4 in hex), one without a time the present one. A time without a zone is
        taken as UTC. PostgreSQL cannot hold a NUL: U+FFFD stands in its place there.

        Returns:
            The record's id.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it could not be stored: disk full, locked too long, id taken.
            UnicodeEncodeError: question or answer holds a lone surrogate, which no database takes.
        """
        record = record if record.id else record.model_copy(update={"id": uuid.uuid4().hex})
        with self._write(shared=True) as connection:
            write(connection, [self._said(record)], known=False)
        return record.id

    def add_many(self, records: Iterable[Record]) -> int:
        """Store many records as ``add`` does, in one transaction, so all or none; meant for some thousands at a time.

        A record whose id is stored already is left out. One without an id gets one that is derived from all that it
        says (personal data and a missing time aside), so that adding it again changes nothing.

        Returns:
            How many were stored.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, UnicodeEncodeError: as ``add``.
        """
        said = [self._said(record) for record in records]
        # What an older release derived an id for is known by that.
        older = {each.older_id: each.row["registered_model"] for each in said if each.older_id}
        known = {i for i, model in self.models_of(older).items() if model and model == older[i]}
        with self._write() as connection:
            return write(connection, [each for each in said if each.older_id not in known], known=True)

    def _write(self, *, shared: bool = False) -> AbstractContextManager[sql.Connection]:
        return writing(self._writing, shared=shared)

    def _said(self, record: Record) -> Said:
        return said_by(record, self.registered_model or "", redacted=self._redacted, nul=self._is_sqlite)

    def models_of(self, ids: Iterable[str]) -> dict[str, str]:
        """Whose the stored ones of these ids are: the registered model of each, of whichever it is."""
        query = sql.select(TRAFFIC.c.id, TRAFFIC.c.registered_model)
        with self._engine.connect() as connection:
            return {
                row.id: row.registered_model
                for part in parts(list(ids))
                for row in connection.execute(query.where(TRAFFIC.c.id.in_(part)))
            }

    def records(self, ids: Sequence[str] | None = None, model_version: str | None = None) -> list[Record]:
        """The stored records in the order they were asked, all of them or those that fit both arguments.

        Args:
            ids: only these; an id that is not stored is left out, a repeated one is returned once.
            model_version: only what this version answered.
        """
        queries = [query := self._query(model_version)]
        if ids is not None:
            queries = [query.where(TRAFFIC.c.id.in_(part)) for part in parts(list(dict.fromkeys(ids)))]
        with self._engine.connect() as connection:
            found = [record for each in queries for record in records(connection, each)]
        return sorted(found, key=lambda record: (record.asked_at, record.id))

    def ids(self, *, user: str = "", conversation: str = "", record: str = "") -> list[str]:
        """The ids of the stored records that fit all that is given, in the order they were asked; of all models' with
        a store of none.

        Args:
            user: as it is stored, a hash (``identity.user_hash``).
            conversation: as it is stored (``identity.conversation_id``).
            record: an id.
        """
        fits = [self._own]
        if user:
            fits.append(ORIGIN.c.user == user)
        if conversation:
            fits.append(sql.or_(ORIGIN.c.conversation == conversation, TRAFFIC.c.conversation == conversation))
        if record:
            fits.append(TRAFFIC.c.id == record)
        query = sql.select(TRAFFIC.c.id).outerjoin(ORIGIN, ORIGIN.c.number == TRAFFIC.c.origin).where(*fits)
        with self._engine.connect() as connection:
            return list(connection.scalars(query.order_by(TRAFFIC.c.asked_at, TRAFFIC.c.seq)))

    def stream(
        self, model_version: str | None = None, *, within: tuple[datetime, datetime] | None = None
    ) -> Iterator[Record]:
        """The stored records in the order they were asked, in bounded memory, while others go on writing.

        A record that is stored meanwhile comes too where its time is after that of the last one given.

        Args:
            model_version: only what this version answered.
            within: only what was asked from the first of these times on, and before the second.
        """
        query = self._query(model_version)
        if within is not None:
            start, end = map(naive_utc, within)
            query = query.where(TRAFFIC.c.asked_at >= start, TRAFFIC.c.asked_at < end)
        for rows in self._pages(query, TRAFFIC.c.asked_at):
            with self._engine.connect() as connection:
                found = of_rows(connection, rows)
            yield from found

    def _query(self, model_version: str | None) -> sql.Select[Any]:
        of_version = sql.true() if model_version is None else TRAFFIC.c.model_version == model_version
        return ROWS.where(self._own, of_version)

    def _pages(self, query: sql.Select[Any], column: sql.Column[datetime]) -> Iterator[Sequence[sql.Row[Any]]]:
        """The rows of a query in the order of a time and of arrival, both of which it selects; none holds others up."""
        query = query.order_by(column, TRAFFIC.c.seq)
        after: list[sql.ColumnElement[bool]] = [sql.true()]
        while True:
            rows: list[sql.Row[Any]] = []
            with self._engine.connect() as connection:
                for where in after:
                    rows += connection.execute(query.where(where).limit(_PAGE - len(rows))).all()
            yield rows
            if len(rows) < _PAGE:
                return
            # Those of one time apart from the later ones: so SQLite's index finds both.
            last = getattr(rows[-1], column.name)
            after = [sql.and_(column == last, TRAFFIC.c.seq > rows[-1].seq), column > last]

    def hours(self) -> list[tuple[datetime, int, int]]:
        """See ``hours_of``."""
        with self._engine.connect() as connection:
            return hours_of(connection, self._own)

    def oldest(self) -> datetime | None:
        """When the first record was asked, in UTC; ``None`` where there is none."""
        with self._engine.connect() as connection:
            first = connection.execute(sql.select(sql.func.min(TRAFFIC.c.asked_at)).where(self._own)).scalar()
        return first and first.replace(tzinfo=UTC)

    def last_stored(self) -> datetime | None:
        """When the newest record was stored, in UTC; ``None`` where none was."""
        with self._engine.connect() as connection:
            last = connection.execute(sql.select(sql.func.max(TRAFFIC.c.stored_at)).where(self._own)).scalar()
        return last and last.replace(tzinfo=UTC)

    def arrivals(self, stored_since: datetime) -> Iterator[list[Arrival]]:
        """What was stored at that time or later, in that order, by the page.

        A record that is stored meanwhile may come too. What it takes follows the number of these records alone.
        """
        return self._arrivals(TRAFFIC.c.stored_at, stored_since)

    def asked_since(self, asked_since: datetime) -> Iterator[list[Arrival]]:
        """What was asked at that time or later, in that order, by the page."""
        return self._arrivals(TRAFFIC.c.asked_at, asked_since)

    def _arrivals(self, column: sql.Column[datetime], since: datetime) -> Iterator[list[Arrival]]:
        query = sql.select(TRAFFIC.c.seq, TRAFFIC.c.id, *(TRAFFIC.c[name] for name in _ARRIVAL))
        query = query.where(self._own, column >= naive_utc(since))
        for rows in self._pages(query, column):
            yield [
                Arrival(id=row.id, asked_at=row.asked_at.replace(tzinfo=UTC), model_version=row.model_version)
                for row in rows
            ]

    def newest(self, n: int, model_version: str | None = None) -> list[Record]:
        """The last ``n`` records that were asked, in that order; one whose time is wrong is not among them."""
        query = self._query(model_version).where(~_ahead())
        query = query.order_by(TRAFFIC.c.asked_at.desc(), TRAFFIC.c.seq.desc()).limit(n)
        with self._engine.connect() as connection:
            return records(connection, query)[::-1]

    def count(self) -> int:
        """How many records are stored."""
        with self._engine.connect() as connection:
            return int(connection.scalar(sql.select(sql.func.count()).select_from(TRAFFIC).where(self._own)) or 0)

    def ahead(self) -> int:
        """How many records bear a time so far ahead that it is wrong (``MOST_AHEAD``)."""
        with self._engine.connect() as connection:
            return int(connection.scalar(sql.select(sql.func.count()).where(self._own, _ahead())) or 0)

    def summary(self) -> TrafficSummary:
        """How many records there are, from when to when, by model version, and how much was redacted."""
        with self._engine.connect() as connection:
            return summarise(connection, self._own)

    def add_feedback(self, *feedback: Feedback) -> int:
        """Keep what somebody thought of answers, in place of what the same key said of each before.

        An answer may be of any registered model: a record's id says enough. Personal data is taken out of the texts, as
        it is of records.

        Returns:
            How many are on a record that there is; the others are left out.
        """
        with self._write(shared=True) as connection:
            return sum(keep(connection, each, redacted=self._redacted) for each in feedback)

    def feedback(self, ids: Iterable[str] | None = None) -> list[Feedback]:
        """What was thought of these records, or of all, the newest first."""
        with self._engine.connect() as connection:
            return given(connection, self._own, ids=ids)

    def thumbs(self, ids: Sequence[str]) -> list[Thumb]:
        """The thumbs on these records, in the order that they were asked."""
        with self._engine.connect() as connection:
            return thumbs(connection, self._own, ids=ids)

    def thumbed(self, since: datetime) -> list[str]:
        """The ids of the records that got a thumb at that time or later."""
        with self._engine.connect() as connection:
            return thumbed(connection, self._own, since=since)

    def thumb_counts(self, model_version: str, since: datetime, *, until: datetime) -> Counter[str]:
        """How many thumbs are ``up`` and ``down`` on what a version was asked in this time, both ends included."""
        own = sql.and_(self._own, TRAFFIC.c.model_version == model_version)
        with self._engine.connect() as connection:
            return thumb_counts(connection, own, since=since, until=until)

    def add_shadow(self, answer: ShadowAnswer) -> bool:
        """Keep what a version answered unseen, personal data taken out; ``False`` where its record is not there."""
        if self._redacted:
            answer = answer.model_copy(update={"answer": redact(answer.answer).text})
        with self._write(shared=True) as connection:
            return write_shadow(connection, answer)

    def shadow(self, ids: Sequence[str], model_version: str | None = None) -> list[ShadowAnswer]:
        """What was answered unseen to the requests of these records, by one version or by any."""
        with self._engine.connect() as connection:
            return list(read_shadow(connection, ids, model_version=model_version))

    def check_writable(self) -> None:
        """Write what changes nothing, as far as ``add`` would.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: a record could not be stored: read-only, locked too long, no such table.
        """
        with self._writing.begin() as connection:
            nothing = sql.select(TRAFFIC).where(sql.false())
            connection.execute(sql.insert(TRAFFIC).from_select(list(TRAFFIC.c.keys()), nothing))

    def prune(self, older_than: timedelta | None = None, keep: int | None = None) -> int:
        """Delete what is ``outdated``, and what was thought of it; returns how many records."""
        return sum(self.erase(page, repeated=False) for page in self.outdated(older_than, keep))

    def outdated(self, older_than: timedelta | None = None, keep: int | None = None) -> Iterator[list[str]]:
        """The ids of what was asked longer ago than ``older_than``, and of all but the newest ``keep``, by the page.

        A record whose time is wrong (``MOST_AHEAD``) counts as asked when it was stored, and as the oldest where an
        older release stored it. Some may come twice.
        """
        limits = []
        asked: sql.ColumnElement[datetime] = TRAFFIC.c.asked_at
        if self.ahead():
            stored = sql.func.coalesce(TRAFFIC.c.stored_at, sql.literal(datetime.min, sql.DateTime))
            asked = sql.case((_ahead(), stored), else_=asked)
        if older_than is not None:
            limits.append(asked < naive_utc(datetime.now(UTC)) - older_than)
        if keep is not None:
            newest = sql.select(asked.label("asked"), TRAFFIC.c.seq).where(self._own)
            newest = newest.order_by(asked.desc(), TRAFFIC.c.seq.desc()).offset(keep).limit(1)
            with self._engine.connect() as connection:
                last = connection.execute(newest).first()
            if last:
                place = sql.tuple_(sql.literal(last.asked), sql.literal(last.seq))
                limits.append(place >= sql.tuple_(asked, TRAFFIC.c.seq))
        for limit in limits:  # one by one, so that the index finds each page
            query = sql.select(TRAFFIC.c.id, TRAFFIC.c.seq, TRAFFIC.c.asked_at).where(self._own, limit)
            for rows in self._pages(query, TRAFFIC.c.asked_at):
                yield [row.id for row in rows]

    def erase(self, ids: Iterable[str], *, repeated: bool = True) -> int:
        """Delete these records, what was thought of them and, where ``repeated``, what later requests of their
        conversations repeat of them, in whose place ``ERASED`` stands; returns how many records."""
        numbers = sql.select(TRAFFIC.c.seq).where(self._own)
        with self._write() as connection:
            found = [n for part in parts(list(ids)) for n in connection.scalars(numbers.where(TRAFFIC.c.id.in_(part)))]
            remove(connection, found, erase=repeated)
        return len(found)

    def scrub(self) -> None:
        """Have nothing of what was deleted left in the database's files; takes a while, during which others wait."""
        scrub(self._engine)

    def unnamed(self) -> int:
        """How many records name no registered model, as those of an older release."""
        with self._engine.connect() as connection:
            return int(connection.scalar(sql.select(sql.func.count()).where(TRAFFIC.c.registered_model == "")) or 0)

    def adopt(self, registered_model: str) -> int:
        """Make the records that name no registered model those of this one; returns how many."""
        named = sql.update(TRAFFIC).values(registered_model=registered_model)
        return self._by_the_page(named, TRAFFIC.c.registered_model == "")

    def _by_the_page(self, change: sql.Update, which: sql.ColumnElement[bool]) -> int:
        """Change the rows of which that holds, after which it must hold no more, so that others can write meanwhile."""
        page, changed = sql.select(TRAFFIC.c.seq).where(which).limit(_PAGE), 0
        while True:
            with self._writing.begin() as connection:
                n = connection.execute(change.where(TRAFFIC.c.seq.in_(page))).rowcount
            changed += n
            if n == 0:
                return changed

    def close(self) -> None:
        """Close all connections; the store opens new ones if it is used again."""
        let_go(self._engine)
        let_go(self._writing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ahead() -> sql.ColumnElement[bool]:
    return TRAFFIC.c.asked_at > naive_utc(datetime.now(UTC)) + MOST_AHEAD
