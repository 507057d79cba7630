"""Tables of ours: in an SQLite file of the state folder, or in the PostgreSQL database that machines share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from ontopic.errors import UserError
from ontopic.state.database import database_name, hold_open, let_go, open_state
from ontopic.state.older_tables import make_anew
from ontopic.state.sqlite_file import IN_WAL_MODE, only_read, sqlite_engine, sqlite_url

_LOCK = 726_415_094  # any number, the same in every process


def model_column(*, primary_key: bool = False) -> sql.Column[str]:
    """The column that names the registered model; empty in rows of an older release."""
    return sql.Column("registered_model", sql.String, primary_key=primary_key, nullable=False, server_default="")


class Tables:
    """Tables in a file, readable by its owner alone, which is made with its folder where missing; or on PostgreSQL.

    In a folder that may not be written, a file is read as it is, and there is nothing in one that is missing.

    Args:
        at: the file's path, or the database's URL (recognised by its ``://``).
        metadata: the tables; on PostgreSQL the migrations have made them.
        what: that is kept in them, as it stands in a sentence ("the alerts").
        immediate, timeout_s: of a file, as ``sqlite_engine`` takes them.
        pooled: whether connections to a file are kept, in WAL mode. Without it each use opens one and leaves nothing
            beside the file, which may be replaced by another.

    Attributes:
        name: the path or URL, as it may be shown.

    Raises:
        UserError: file or database cannot be opened, or are not such ones.
    """

    def __init__(
        self,
        at: Path | str,
        metadata: sql.MetaData,
        *,
        what: str,
        immediate: bool = False,
        timeout_s: float = 30,
        pooled: bool = True,
    ) -> None:
        self.name, self._what = database_name(at), what
        self._url = str(at) if "://" in str(at) else None
        if self._url is not None:
            self._engine = hold_open(open_state(self._url))
            return
        pragmas = IN_WAL_MODE if pooled else ()
        self._engine = sqlite_engine(
            sqlite_url(Path(at)), timeout_s=timeout_s, pooled=pooled, immediate=immediate, pragmas=pragmas
        )
        try:
            _make(Path(at), metadata, engine=self._engine)
        except (SQLAlchemyError, OSError) as error:
            raise UserError(
                f"{at}: {what} cannot be read ({str(error).splitlines()[0]}); check that it is a database that "
                "OnTopic made and that it may be written"
            ) from error

    @contextmanager
    def _writing(self, whose: str = "") -> Iterator[sql.Connection]:
        """A transaction that writes what follows from what it reads.

        In a file it is as the engine has it. On PostgreSQL no other one of these tables goes on beside it, and it ends
        in a ``LeadLostError`` where this process no longer leads.

        Args:
            whose: rows it reads and writes, where others' may be written beside it.
        """
        with self._engine.begin() as connection:
            if self._url is not None:
                from ontopic.state.lead import check_leads

                check_leads(connection, self._url)
                number = int.from_bytes(hashlib.sha256(f"{self._what}/{whose}".encode()).digest()[:4]) >> 1
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK, number)))
            yield connection

    def close(self) -> None:
        """Close all connections."""
        let_go(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make(path: Path, metadata: sql.MetaData, *, engine: sql.Engine) -> None:
    """Make a file with its tables, or give those of an older release what they lack."""
    if not only_read(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    # As one transaction: sqlite3 by itself would commit before each change of a table.
    make_anew(engine, metadata, writing=sqlite_engine(sqlite_url(path), pooled=False, immediate=True, pragmas=()))
    with engine.begin() as connection:
        for table in metadata.sorted_tables:  # another process may be making the same ones
            connection.execute(sql.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(sql.schema.CreateIndex(index, if_not_exists=True))


class ModelTables(Tables):
    """Tables of which this object reads and writes the rows of one registered model.

    Args:
        at, metadata, what: as ``Tables`` takes them; tables without a column ``registered_model`` are shared.
        registered_model: its name.
    """

    def __init__(self, at: Path | str, registered_model: str, *, metadata: sql.MetaData, what: str) -> None:
        self.registered_model = registered_model
        self._named = [table for table in metadata.sorted_tables if "registered_model" in table.c]
        super().__init__(at, metadata, what=what)

    @contextmanager
    def _writing(self, whose: str = "") -> Iterator[sql.Connection]:
        with super()._writing(whose or self.registered_model) as connection:
            yield connection

    def unnamed(self) -> int:
        """How many rows name no registered model, as those of an older release."""
        with self._engine.connect() as connection:
            counts = [
                connection.scalar(sql.select(sql.func.count()).select_from(table).where(table.c.registered_model == ""))
                for table in self._named
            ]
        return sum(int(n or 0) for n in counts)

    def adopt(self, registered_model: str) -> int:
        """Make the rows that name no registered model this one's, but for those whose key it has; returns how many."""
        n = 0
        with self._writing() as connection:
            for table in self._named:
                of_none = table.c.registered_model == ""
                taken = sql.or_(sql.false(), *(_taken(table, key, by=registered_model) for key in _keys(table)))
                change = sql.update(table).where(of_none, ~taken).values(registered_model=registered_model)
                n += connection.execute(change).rowcount
                connection.execute(sql.delete(table).where(of_none))
        return n


def _keys(table: sql.Table) -> Iterator[Sequence[str]]:
    """The columns, but for the registered model, of which each model has a row at most once."""
    unique = [index.columns for index in table.indexes if index.unique]
    for names in ([column.name for column in columns] for columns in (table.primary_key.columns, *unique)):
        if "registered_model" in names:
            yield [name for name in names if name != "registered_model"]


def _taken(table: sql.Table, key: Sequence[str], *, by: str) -> sql.ColumnElement[bool]:
    other = table.alias()
    same = [other.c[name] == table.c[name] for name in key]
    return sql.exists().where(other.c.registered_model == by, *same)
