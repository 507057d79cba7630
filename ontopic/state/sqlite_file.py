"""SQLite files that several processes use: how one is opened, and how times stand in it."""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sql
from sqlalchemy import event

IN_WAL_MODE = ("journal_mode=WAL",)
"""Lets others read while one writes."""


def sqlite_url(path: Path) -> sql.URL:
    """The URL of an SQLite file, whatever characters are in its path."""
    return sql.URL.create("sqlite", database=str(path))


def sqlite_engine(
    url: sql.URL,
    *,
    timeout_s: float = 30,
    pooled: bool = True,
    immediate: bool = False,
    pragmas: tuple[str, ...] = IN_WAL_MODE,
) -> sql.Engine:
    """An engine on an SQLite file, which is only read where it may not be written.

    Its errors name the file in a note, and carry no values, which may be a customer's.

    Args:
        timeout_s: seconds that a transaction waits while another process writes.
        pooled: whether connections are kept; without it each use opens one, so that a replaced file is seen.
        immediate: whether a transaction takes the right to write when it begins, for one that reads first and then
            writes what follows from it. Without it, those who only read wait for nobody.
        pragmas: set on each new connection.
    """
    path = Path(url.database or ":memory:")
    poolclass: type[sql.Pool] | None = None if pooled else sql.pool.NullPool
    if url.database is not None and only_read(path):
        immediate, pragmas = False, ()
        poolclass = poolclass if path.exists() else sql.pool.StaticPool
        url = _read_only(path)
    engine = sql.create_engine(url, connect_args={"timeout": timeout_s}, hide_parameters=True, poolclass=poolclass)

    @event.listens_for(engine, "handle_error")
    def _name(context: sql.engine.ExceptionContext) -> None:
        (context.sqlalchemy_exception or context.original_exception).add_note(f"in {path}")

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _: object) -> None:
        if immediate:  # sqlite3 begins a transaction before the first write only, too late for one that reads first
            connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    if immediate:
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def only_read(path: Path) -> bool:
    """Whether a file is there, or could be, and may not be written; the log beside it counts too."""
    folder = path.parent
    return folder.is_dir() and not (os.access(folder, os.W_OK) and (not path.exists() or os.access(path, os.W_OK)))


def _read_only(path: Path) -> sql.URL:
    """The URL of a file that is read and no more; of an empty database where it is missing."""
    if not path.exists():
        return sql.URL.create("sqlite")
    query = {"mode": "ro", "uri": "true"}
    log = path.with_name(f"{path.name}-wal")
    if not (log.is_file() and log.stat().st_size):  # else another process writes, and SQLite looks at its log
        query["immutable"] = "1"
    return sql.URL.create("sqlite", database=f"file:{quote(str(path))}", query=query)


def delete_for_good(connection: sql.Connection) -> None:
    """Have nothing be left in an SQLite file of what this connection deletes; elsewhere that is the server's part."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def naive_utc(at: datetime) -> datetime:
    """A time as a column keeps it, in UTC without a zone, for SQLite keeps none; one without a zone is taken as UTC."""
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
