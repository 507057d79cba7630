"""Tables of ours in SQL databases: URLs, the engine on PostgreSQL, and how a database gets tables or is upgraded."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.dialects import sqlite

from ontopic.errors import UserError

_DRIVERS = dict.fromkeys(("postgres", "postgresql"), "postgresql+psycopg")
# A connection whose other end is gone is given up within ten seconds, also while an answer is awaited.
_CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
}
STATE_REVISIONS = ("0001", "0002", "0003")
"""Of ``migrations/``, oldest first."""
_HOLDERS: Counter[sql.Engine] = Counter()


def database_name(url_or_path: str | Path) -> str:
    """A database's path or URL as it may be shown: without user and password."""
    text = str(url_or_path)
    if "://" not in text:
        return text
    return text.partition("://")[0] + "://" + text.partition("://")[2].rpartition("@")[2].partition("?")[0]


def database_url(url: str, *, what: str, backends: tuple[str, ...] = ("postgresql",)) -> sql.URL:
    """A URL of the user's, with the driver that is installed for it.

    Args:
        what: that is kept there, as it stands in a sentence ("the traffic store").
        backends: that it may be on.

    Raises:
        UserError: it is on another one, or is no URL.
    """
    try:
        found = sql.make_url(url)
        found = found.set(drivername=_DRIVERS.get(found.drivername, found.drivername))
        backend = found.get_backend_name()
    except (sql.exc.ArgumentError, ValueError):  # the second: a port that is no number
        backend = ""
    if backend not in backends:
        names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
        where = " nor ".join(f"on {names[each]}" for each in backends)
        raise UserError(
            f"{what} {database_name(url)} is {'neither' if len(backends) > 1 else 'not'} {where}; give a URL such as "
            "postgresql://user:password@host/database"
        )
    return found


@functools.cache
def postgresql_engine(url: sql.URL) -> sql.Engine:
    """The engine on a PostgreSQL database, one a process for all tables of ours.

    Its errors carry no values, which may be a customer's.

    Raises:
        ImportError: PostgreSQL's driver is not installed.
    """
    connecting = {name: value for name, value in _CONNECTING.items() if name not in url.query}
    engine = sql.create_engine(url, connect_args=connecting, pool_pre_ping=True, hide_parameters=True)
    sql.event.listen(engine, "connect", _watch_this_end)
    return engine


def hold_open(engine: sql.Engine) -> sql.Engine:
    """The engine for one more object that ends its use with ``let_go``."""
    _HOLDERS[engine] += 1
    return engine


def let_go(engine: sql.Engine) -> None:
    """Close all connections that wait for use, once no other object uses the engine, which can be used anew."""
    _HOLDERS[engine] -= 1
    if _HOLDERS[engine] <= 0:
        del _HOLDERS[engine]
        engine.dispose()


def _watch_this_end(connection: Any, _: object) -> None:
    """Have the server give a connection up, and its locks, soon after this machine is gone."""
    connection.autocommit = True
    connection.execute("SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2")
    connection.autocommit = False


class OutOfReachError(UserError):
    """A database does not answer, now."""


def not_opened(error: BaseException, *, what: str, name: str) -> UserError:
    """What to say where a database could not be opened, and do about it.

    Args:
        what, name: it, and where; as they may be shown.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "psycopg":
        return UserError(
            f"{what} is on PostgreSQL, whose driver is not installed; run pip install -c constraints.txt "
            "-e '.[postgres]'"
        )
    said = (str(error).splitlines() or [type(error).__name__])[0]
    kind = OutOfReachError if isinstance(error, sql.exc.OperationalError) else UserError
    return kind(f"{what} {name} could not be opened ({said}); check that it exists, is a database and may be written")


def insert_into(connection: sql.Connection, table: sql.Table) -> Any:
    """An insertion that may leave out, or put itself in the place of, what is there already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # a twentieth of a second, which an SQLite file need not wait

    return postgresql.insert(table)


class Migrations(NamedTuple):
    """The revisions of some tables.

    Attributes:
        what: the tables, as it stands in a sentence ("the traffic store").
        folder: Alembic's scripts.
        revisions: oldest first.
        version_table: of their own: MLflow and ZenML keep an ``alembic_version``, maybe in the same database.
        lock: any number, the same in every process; PostgreSQL's lock while one upgrades.
    """

    what: str
    folder: Path
    revisions: tuple[str, ...]
    version_table: str
    lock: int

    def are_done(self, engine: sql.Engine) -> bool:
        """Whether the tables are there and of this release."""
        with engine.connect() as connection:
            return self._revision(connection) == self.revisions[-1]

    def upgrade(self, engine: sql.Engine, name: str) -> None:
        """Run the migrations that are missing, in one transaction that no other process upgrades beside.

        Args:
            name: the database, as it may be shown.

        Raises:
            UserError: the tables are of a newer release.
        """
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(self.lock)))
            revision = self._revision(connection)  # another process may have been first
            if revision not in (None, *self.revisions):
                raise UserError(
                    f"{self.what} {name} is of a newer release of OnTopic (revision {revision}); update OnTopic, or "
                    "use another store"
                )
            if revision != self.revisions[-1]:
                self._migrate(connection)

    def _revision(self, connection: sql.Connection) -> str | None:
        if not sql.inspect(connection).has_table(self.version_table):
            return None
        return connection.execute(sql.text(f"SELECT version_num FROM {self.version_table}")).scalar()  # noqa: S608

    def _migrate(self, connection: sql.Connection) -> None:
        from alembic import command  # a fifth of a second, which only who upgrades need wait
        from alembic.config import Config

        config = Config(attributes={"connection": connection, "version_table": self.version_table})
        # A path's percent signs would be read as references to other options.
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        command.upgrade(config, "head")


def run_revisions() -> None:
    """What an ``env.py`` of Alembic's does, on the connection that ``Migrations`` hands over."""
    from alembic import context

    context.configure(
        connection=context.config.attributes["connection"],
        version_table=context.config.attributes["version_table"],
    )
    context.run_migrations()


STATE = Migrations(
    what="the shared state",
    folder=Path(__file__).parent / "migrations",
    revisions=STATE_REVISIONS,
    version_table="state_version",
    lock=7_264_150_941,
)
"""The tables that several machines share. In a state folder each of its files has its own, made by ``Tables``."""


def open_state(url: str) -> sql.Engine:
    """The engine on the database of the shared state, whose tables are there and of this release.

    Raises:
        UserError: it is not on PostgreSQL, is of a newer release, or cannot be opened, or the driver is missing.
    """
    try:
        engine = postgresql_engine(database_url(url, what=STATE.what))
        if not STATE.are_done(engine):
            STATE.upgrade(engine, database_name(url))
    except (sql.exc.SQLAlchemyError, ImportError, OSError) as error:
        raise not_opened(error, what=STATE.what, name=database_name(url)) from error
    return engine
