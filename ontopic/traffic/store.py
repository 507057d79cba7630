"""The traffic store: every question that a served model was asked, and its answer."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from ontopic.errors import UserError
from ontopic.records import Feedback, Record
from ontopic.traffic.redaction import KINDS, redact

_TRAFFIC = sql.Table(
    "traffic",
    sql.MetaData(),
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("asked_at", sql.DateTime, nullable=False),  # naive, in UTC: SQLite keeps no time zone
    sql.Column("model_version", sql.String(200), nullable=False),
    sql.Column("question", sql.Text, nullable=False),
    sql.Column("answer", sql.Text, nullable=False),
    sql.Column("in_scope", sql.Boolean),
    sql.Column("latency_s", sql.Float, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("finished", sql.Boolean, nullable=False),
    *(sql.Column(f"redacted_{kind}", sql.Integer, nullable=False, server_default="0") for kind in KINDS),
    sql.Column("stored_at", sql.DateTime),  # naive, in UTC; none where an older release stored it
)
_FEEDBACK = sql.Table(
    "feedback",
    sql.MetaData(),
    sql.Column("record_id", sql.String(64), primary_key=True),
    sql.Column("by", sql.String(64), primary_key=True),
    sql.Column("thumb", sql.String(4), nullable=False),
    sql.Column("comment", sql.Text, nullable=False),
    sql.Column("given_at", sql.DateTime, nullable=False),
)
_BY_TIME = sql.tuple_(_TRAFFIC.c.asked_at, _TRAFFIC.c.id)
REVISIONS = ("0001", "0002", "0003", "0004")  # of ontopic/migrations, oldest first
_VERSION_TABLE = "traffic_version"  # MLflow and ZenML keep an alembic_version of their own, maybe in the same database
_LOCK = 7_264_150_931  # any number, the same in every process
_IDS_A_QUERY = 500  # SQLite before 3.32 binds at most 999 parameters
_PAGE = 1000
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}


class Arrival(BaseModel):
    """That a record was stored: its id, the time of its question (UTC) and the version that answered it."""

    model_config = ConfigDict(frozen=True)
    id: str
    asked_at: datetime
    model_version: str


class VersionTraffic(BaseModel):
    """What one model version was asked: how many records, and the times (UTC) of the first and the last."""

    model_config = ConfigDict(frozen=True)
    model_version: str
    n: int
    first: datetime
    last: datetime


class TrafficSummary(BaseModel):
    """What a store holds.

    Attributes:
        versions: in the order in which they were first asked.
        redacted: how much personal data of each kind was taken out, of the kinds that occur.
    """

    model_config = ConfigDict(frozen=True)
    versions: list[VersionTraffic]
    redacted: dict[str, int]

    @property
    def n(self) -> int:
        """How many records."""
        return sum(version.n for version in self.versions)


class TrafficStore:
    """Records in a SQL database; several threads and processes may use the same one at once.

    Personal data is replaced by placeholders before anything is written (``redaction``, best effort), and how
    much of each kind is kept on the record.

    Args:
        url_or_path: the path of an SQLite file, or the URL of an SQLite or PostgreSQL database (recognised by its
            ``://``). File, folder and table are created where missing; a store of an older release is upgraded.
        redacted: whether personal data is taken out.

    Raises:
        UserError: the file or database cannot be opened, is none, or is of a newer release; or PostgreSQL's driver is
            not installed.
    """

    def __init__(self, url_or_path: str | Path, redacted: bool = True) -> None:
        self._redacted = redacted
        try:
            url = _url(url_or_path)
            self._is_sqlite = url.get_backend_name() == "sqlite"
            self._engine = sql.create_engine(
                url,
                connect_args={"timeout": 30} if self._is_sqlite else {"connect_timeout": 10},
                pool_pre_ping=not self._is_sqlite,
                hide_parameters=True,  # an error's text must not carry a customer's
            )
            if self._is_sqlite:
                event.listen(self._engine, "connect", _make_durable)
            with self._engine.connect() as connection:
                revision = _revision(connection)
            if revision != REVISIONS[-1]:
                self._upgrade(store_name(url_or_path))
        except (SQLAlchemyError, ImportError, OSError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
                raise UserError(
                    "the traffic store is on PostgreSQL, whose driver is not installed; run pip install "
                    "-c constraints.txt -e '.[postgres]'"
                ) from error
            raise UserError(
                f"the traffic store {store_name(url_or_path)} could not be opened ({_first_line(error)}); "
                "check that it exists, is a database and may be written"
            ) from error

    def _upgrade(self, name: str) -> None:
        with self._engine.connect() as connection:
            if self._is_sqlite:
                # sqlite3 opens transactions by itself, but not before a CREATE TABLE: so by hand.
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))
            try:
                revision = _revision(connection)  # another process may have been first
                if revision not in (None, *REVISIONS):
                    raise UserError(
                        f"the traffic store {name} is of a newer release of OnTopic (revision {revision}); "
                        "update OnTopic, or use another store"
                    )
                if revision != REVISIONS[-1]:
                    _migrate(connection)
                connection.exec_driver_sql("COMMIT") if self._is_sqlite else connection.commit()
            except BaseException:
                connection.exec_driver_sql("ROLLBACK") if self._is_sqlite else connection.rollback()
                raise

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
        row = self._row(record)
        row["id"] = record.id or uuid.uuid4().hex
        with self._engine.begin() as connection:
            connection.execute(sql.insert(_TRAFFIC).values(row))
        return str(row["id"])

    def add_many(self, records: Iterable[Record]) -> int:
        """Store many records as ``add`` does, in one transaction, so all or none; meant for some thousands at a time.

        A record whose id is stored already is left out. One without an id gets one that is derived from all that it
        says (personal data and a missing time aside), so that adding it again changes nothing.

        Returns:
            How many were stored.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, UnicodeEncodeError: as ``add``.
        """
        rows = [self._row(record) for record in records]
        if not rows:
            return 0
        insert = sqlite.insert(_TRAFFIC) if self._is_sqlite else postgresql.insert(_TRAFFIC)
        with self._engine.begin() as connection:
            options = {"preserve_rowcount": True}  # psycopg's is thrown away otherwise
            return connection.execute(insert.on_conflict_do_nothing(), rows, execution_options=options).rowcount

    def _row(self, record: Record) -> dict[str, Any]:
        row = record.model_dump()
        counts = row.pop("redacted")
        for name in ("question", "answer"):
            if self._redacted:
                redacted = redact(row[name])
                row[name] = redacted.text
                counts = {kind: counts.get(kind, 0) + redacted.counts.get(kind, 0) for kind in KINDS}
            if not self._is_sqlite:
                row[name] = row[name].replace("\0", "\ufffd")
        if row["asked_at"] is not None and row["asked_at"].tzinfo is not None:
            row["asked_at"] = row["asked_at"].astimezone(UTC).replace(tzinfo=None)
        if not row["id"]:
            row["id"] = hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:32]
        row["stored_at"] = datetime.now(UTC).replace(tzinfo=None)
        row["asked_at"] = row["asked_at"] or row["stored_at"]
        return row | {f"redacted_{kind}": counts.get(kind, 0) for kind in KINDS}

    def records(self, ids: Sequence[str] | None = None, model_version: str | None = None) -> list[Record]:
        """The stored records in the order they were asked, all of them or those that fit both arguments.

        Args:
            ids: only these; an id that is not stored is left out, a repeated one is returned once.
            model_version: only what this version answered.
        """
        query = sql.select(_TRAFFIC)
        if model_version is not None:
            query = query.where(_TRAFFIC.c.model_version == model_version)
        queries = [query]
        if ids is not None:
            unique = list(dict.fromkeys(ids))
            parts = [unique[start : start + _IDS_A_QUERY] for start in range(0, len(unique), _IDS_A_QUERY)]
            queries = [query.where(_TRAFFIC.c.id.in_(part)) for part in parts]
        with self._engine.connect() as connection:
            records = [_record(row) for each in queries for row in connection.execute(each)]
        return sorted(records, key=lambda record: (record.asked_at, record.id))

    def stream(self, model_version: str | None = None) -> Iterator[Record]:
        """The stored records in the order they were asked, in bounded memory, while others go on writing.

        A record that is stored meanwhile comes too where its time is after that of the last one given.

        Args:
            model_version: only what this version answered.
        """
        query = sql.select(_TRAFFIC)
        if model_version is not None:
            query = query.where(_TRAFFIC.c.model_version == model_version)
        for rows in self._pages(query, _TRAFFIC.c.asked_at):
            yield from map(_record, rows)

    def _pages(self, query: sql.Select[Any], column: sql.Column[datetime]) -> Iterator[Sequence[Any]]:
        """The rows of a query in the order of a time and the id, both of which it selects; none holds others up."""
        query = query.order_by(column, _TRAFFIC.c.id).limit(_PAGE)
        page = query
        while True:
            with self._engine.connect() as connection:
                rows = connection.execute(page).all()
            yield rows
            if len(rows) < _PAGE:
                return
            last = sql.tuple_(sql.literal(getattr(rows[-1], column.name)), sql.literal(rows[-1].id))
            page = query.where(last < sql.tuple_(column, _TRAFFIC.c.id))

    def oldest(self) -> datetime | None:
        """When the first record was asked, in UTC; ``None`` where there is none."""
        with self._engine.connect() as connection:
            first = connection.execute(sql.select(sql.func.min(_TRAFFIC.c.asked_at))).scalar()
        return first and first.replace(tzinfo=UTC)

    def last_stored(self) -> datetime | None:
        """When the newest record was stored, in UTC; ``None`` where none was."""
        with self._engine.connect() as connection:
            last = connection.execute(sql.select(sql.func.max(_TRAFFIC.c.stored_at))).scalar()
        return last and last.replace(tzinfo=UTC)

    def arrivals(self, stored_since: datetime) -> Iterator[list[Arrival]]:
        """What was stored at that time or later, in that order, by the page.

        A record that is stored meanwhile may come too. What it takes follows the number of these records alone.
        """
        return self._arrivals(_TRAFFIC.c.stored_at, stored_since)

    def asked_since(self, asked_since: datetime) -> Iterator[list[Arrival]]:
        """What was asked at that time or later, in that order, by the page."""
        return self._arrivals(_TRAFFIC.c.asked_at, asked_since)

    def _arrivals(self, column: sql.Column[datetime], since: datetime) -> Iterator[list[Arrival]]:
        query = sql.select(_TRAFFIC.c.id, _TRAFFIC.c.asked_at, _TRAFFIC.c.model_version, _TRAFFIC.c.stored_at)
        query = query.where(column >= since.astimezone(UTC).replace(tzinfo=None))
        for rows in self._pages(query, column):
            yield [
                Arrival(id=row.id, asked_at=row.asked_at.replace(tzinfo=UTC), model_version=row.model_version)
                for row in rows
            ]

    def newest(self, n: int, model_version: str | None = None) -> list[Record]:
        """The last ``n`` records that were asked, in that order."""
        query = sql.select(_TRAFFIC).order_by(_TRAFFIC.c.asked_at.desc(), _TRAFFIC.c.id.desc()).limit(n)
        if model_version is not None:
            query = query.where(_TRAFFIC.c.model_version == model_version)
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query)][::-1]

    def count(self) -> int:
        """How many records are stored."""
        with self._engine.connect() as connection:
            return int(connection.execute(sql.select(sql.func.count()).select_from(_TRAFFIC)).scalar_one())

    def summary(self) -> TrafficSummary:
        """How many records there are, from when to when, by model version, and how much was redacted."""
        first, last = sql.func.min(_TRAFFIC.c.asked_at), sql.func.max(_TRAFFIC.c.asked_at)
        versions = sql.select(_TRAFFIC.c.model_version, sql.func.count(), first, last)
        versions = versions.group_by(_TRAFFIC.c.model_version).order_by(first, _TRAFFIC.c.model_version)
        sums = sql.select(*(sql.func.sum(_TRAFFIC.c[f"redacted_{kind}"]) for kind in KINDS))
        with self._engine.connect() as connection:
            rows, redacted = connection.execute(versions).all(), connection.execute(sums).one()
        return TrafficSummary(
            versions=[
                VersionTraffic(model_version=name, n=n, first=first.replace(tzinfo=UTC), last=last.replace(tzinfo=UTC))
                for name, n, first, last in rows
            ],
            redacted={kind: int(n) for kind, n in zip(KINDS, redacted, strict=True) if n},
        )

    def add_feedback(self, feedback: Feedback) -> bool:
        """Keep what somebody thought of an answer, in place of what the same key said of it before.

        Personal data is taken out of the comment, as it is of records.

        Returns:
            ``False`` where there is no such record.
        """
        comment = redact(feedback.comment).text if self._redacted else feedback.comment
        at = (feedback.given_at or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
        values = {"thumb": feedback.thumb, "comment": comment if self._is_sqlite else comment.replace("\0", "\ufffd")}
        row = {"record_id": feedback.record_id, "by": feedback.by, "given_at": at, **values}
        insert = (sqlite.insert if self._is_sqlite else postgresql.insert)(_FEEDBACK).values(row)
        replaced = insert.on_conflict_do_update(index_elements=["record_id", "by"], set_={**values, "given_at": at})
        with self._engine.begin() as connection:
            found = connection.scalar(sql.select(_TRAFFIC.c.id).where(_TRAFFIC.c.id == feedback.record_id))
            if found is not None:
                connection.execute(replaced)
        return found is not None

    def feedback(self) -> list[Feedback]:
        """All feedback, the newest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_FEEDBACK).order_by(_FEEDBACK.c.given_at.desc())).all()
        return [
            Feedback(
                record_id=row.record_id,
                thumb=row.thumb,
                comment=row.comment,
                by=row.by,
                given_at=row.given_at.replace(tzinfo=UTC),
            )
            for row in rows
        ]

    def check_writable(self) -> None:
        """Write what changes nothing, as far as ``add`` would.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: a record could not be stored: read-only, locked too long, no such table.
        """
        with self._engine.begin() as connection:
            nothing = sql.select(_TRAFFIC).where(sql.false())
            connection.execute(sql.insert(_TRAFFIC).from_select(list(_TRAFFIC.c.keys()), nothing))

    def prune(self, older_than: timedelta | None = None, keep: int | None = None) -> int:
        """Delete the records that were asked longer ago than ``older_than``, and all but the newest ``keep``.

        What was thought of them goes with them.

        Goes by the page, so that others can write meanwhile. SQLite uses the room again but does not give it back.

        Returns:
            How many were deleted.
        """
        limits = []
        if older_than is not None:
            limits.append(_TRAFFIC.c.asked_at < datetime.now(UTC).replace(tzinfo=None) - older_than)
        if keep is not None:
            newest = sql.select(_TRAFFIC.c.asked_at, _TRAFFIC.c.id)
            newest = newest.order_by(_TRAFFIC.c.asked_at.desc(), _TRAFFIC.c.id.desc()).offset(keep).limit(1)
            with self._engine.connect() as connection:
                last = connection.execute(newest).first()
            if last:
                limits.append(sql.tuple_(sql.literal(last.asked_at), sql.literal(last.id)) >= _BY_TIME)
        deleted = 0
        for limit in limits:  # one by one, so that the index finds each page
            oldest = sql.select(_TRAFFIC.c.id).where(limit).limit(_PAGE)
            while True:
                with self._engine.begin() as connection:
                    n = connection.execute(sql.delete(_TRAFFIC).where(_TRAFFIC.c.id.in_(oldest))).rowcount
                deleted += n
                if n == 0:
                    break
        if deleted:  # each readiness check prunes nothing, and should not read all feedback
            with self._engine.begin() as connection:
                left = sql.exists().where(_TRAFFIC.c.id == _FEEDBACK.c.record_id)
                connection.execute(sql.delete(_FEEDBACK).where(~left))
        return deleted

    def close(self) -> None:
        """Close all connections; the store opens new ones if it is used again."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def store_name(url_or_path: str | Path) -> str:
    """A store's path or URL as it may be shown: without user and password."""
    text = str(url_or_path)
    if "://" not in text:
        return text
    return text.partition("://")[0] + "://" + text.partition("://")[2].rpartition("@")[2].partition("?")[0]


def _url(url_or_path: str | Path) -> sql.URL:
    if "://" not in str(url_or_path):
        path = Path(url_or_path).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        return sql.URL.create("sqlite", database=str(path))
    url = sql.make_url(str(url_or_path))
    url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(
            f"the traffic store {store_name(url_or_path)} is neither on SQLite nor on PostgreSQL; give a URL such as "
            "postgresql://user:password@host/database"
        )
    return url


def _revision(connection: sql.Connection) -> str | None:
    """The revision of the store's schema; ``None`` where it has none yet."""
    if not sql.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(sql.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608


def _migrate(connection: sql.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": _VERSION_TABLE})
    # A path's percent signs would be read as references to other options.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    command.upgrade(config, "head")


def _record(row: Any) -> Record:
    values = row._asdict() | {"asked_at": row.asked_at.replace(tzinfo=UTC)}
    counts = {kind: values.pop(f"redacted_{kind}") for kind in KINDS}
    return Record.model_validate(values | {"redacted": {kind: n for kind, n in counts.items() if n}})


def _make_durable(connection: Any, _: object) -> None:
    # WAL lets others read while one writes; FULL syncs the log at each commit, so a record survives a power cut.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
