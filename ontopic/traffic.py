"""The traffic store: every question that a served model was asked, and its answer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from ontopic.errors import UserError
from ontopic.records import Record

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
)
_IDS_A_QUERY = 500  # SQLite before 3.32 binds at most 999 parameters


class TrafficStore:
    """Records in a SQL database; several threads and processes may use the same one at once.

    Args:
        url_or_path: the path of an SQLite file, or an SQLAlchemy URL (recognised by its ``://``). File, folder and
            table are created where missing.

    Raises:
        UserError: the file or database cannot be opened, or is none.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        try:
            url = sql.make_url(str(url_or_path)) if "://" in str(url_or_path) else _sqlite_url(Path(url_or_path))
            sqlite = url.get_backend_name() == "sqlite"
            self._engine = sql.create_engine(url, connect_args={"timeout": 30} if sqlite else {})
            if sqlite:
                event.listen(self._engine, "connect", _make_durable)
            with self._engine.begin() as connection:
                connection.execute(CreateTable(_TRAFFIC, if_not_exists=True))
        except (SQLAlchemyError, ImportError, OSError) as error:
            # The URL may hold a password: name only what follows it.
            raise UserError(
                f"the traffic store {str(url_or_path).rpartition('@')[2]} could not be opened ({_first_line(error)}); "
                "check that it exists, is a database and may be written"
            ) from error

    def add(self, record: Record) -> str:
        """Store ``record``; it is on disk when this returns.

        A record without an id gets one (a uuid4 in hex), one without a time the present one. A time without a zone is
        taken as UTC.

        Returns:
            The record's id.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it could not be stored: disk full, locked too long, id taken.
            UnicodeEncodeError: question or answer holds a lone surrogate, which no database takes.
        """
        asked_at = record.asked_at or datetime.now(UTC)
        if asked_at.tzinfo is not None:
            asked_at = asked_at.astimezone(UTC).replace(tzinfo=None)
        row = asdict(record) | {"id": record.id or uuid.uuid4().hex, "asked_at": asked_at}
        with self._engine.begin() as connection:
            connection.execute(sql.insert(_TRAFFIC).values(row))
        return str(row["id"])

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
            rows = [row._asdict() for each in queries for row in connection.execute(each)]
        records = [replace(Record(**row), asked_at=row["asked_at"].replace(tzinfo=UTC)) for row in rows]
        return sorted(records, key=lambda record: (record.asked_at, record.id))

    def count(self) -> int:
        """How many records are stored."""
        with self._engine.connect() as connection:
            return int(connection.execute(sql.select(sql.func.count()).select_from(_TRAFFIC)).scalar_one())

    def close(self) -> None:
        """Close all connections; the store opens new ones if it is used again."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sqlite_url(path: Path) -> sql.URL:
    path = path.expanduser().resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return sql.URL.create("sqlite", database=str(path))


def _make_durable(connection: Any, _: object) -> None:
    # WAL lets others read while one writes; FULL syncs the log at each commit, so a record survives a power cut.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
