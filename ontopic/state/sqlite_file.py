"""An SQLite file that several processes use: how it is opened, and how times stand in it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from ontopic.errors import UserError


class SQLiteFile:
    """A file of tables in WAL mode, readable by its owner alone; made with its folder where missing.

    Args:
        metadata: the tables.
        what: that is kept in it, as it stands in a sentence ("the alerts").
        immediate: whether a transaction takes the right to write when it begins, for one that reads first and then
            writes what follows from it. Without it, those who only read wait for nobody.

    Raises:
        UserError: the file cannot be opened, or is no such database.
    """

    def __init__(self, path: Path, metadata: sql.MetaData, *, what: str, immediate: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            url = sql.URL.create("sqlite", database=str(path))
            self._engine = sql.create_engine(url, connect_args={"timeout": 30}, hide_parameters=True)
            event.listen(self._engine, "connect", _by_hand if immediate else _in_wal_mode)
            if immediate:
                event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
            with self._engine.begin() as connection:
                for table in metadata.sorted_tables:  # another process may be making the same ones
                    connection.execute(sql.schema.CreateTable(table, if_not_exists=True))
                    for index in table.indexes:
                        connection.execute(sql.schema.CreateIndex(index, if_not_exists=True))
        except (SQLAlchemyError, OSError) as error:
            raise UserError(
                f"{path}: {what} cannot be read ({str(error).splitlines()[0]}); check that it is a database that "
                "OnTopic made and that it may be written"
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def naive_utc(at: datetime) -> datetime:
    """A time as a column keeps it, in UTC without a zone, for SQLite keeps none; one without a zone is taken as UTC."""
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at


def _in_wal_mode(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")


def _by_hand(connection: Any, _: object) -> None:
    # sqlite3 begins a transaction before the first write only, too late for one that reads first.
    connection.isolation_level = None
    _in_wal_mode(connection, _)
