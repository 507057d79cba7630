"""The traffic store's tables, and how a database gets them or is upgraded to them."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sql

from ontopic.state.database import Migrations, database_name, database_url, hold_open, postgresql_engine
from ontopic.state.sqlite_file import IN_WAL_MODE, sqlite_engine, sqlite_url
from ontopic.traffic.redaction import KINDS

_METADATA = sql.MetaData()
_NUMBER = sql.BigInteger().with_variant(sql.Integer, "sqlite")  # SQLite numbers rows by itself in an INTEGER alone
TRAFFIC = sql.Table(
    "traffic",
    _METADATA,
    sql.Column("seq", _NUMBER, primary_key=True),
    sql.Column("id", sql.String(64), nullable=False, unique=True),
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
    sql.Column("stored_at", sql.DateTime),  # naive, in UTC; null where an older release stored it
    sql.Column("registered_model", sql.String(200), nullable=False, server_default=""),  # empty of an older release
    # Of a process of the last release that still runs, which knows no origin; what is stored since has it there.
    sql.Column("parameters", sql.Text),
    sql.Column("conversation", sql.String(64), nullable=False, server_default=""),
    sql.Column("messages", sql.Text),  # packed (``turns``)
    sql.Column("parent", _NUMBER),  # the earlier record of the conversation that the packed messages point at
    sql.Column("origin", _NUMBER),
    sql.Column("guard", sql.Text),  # JSON; null where no guard looked at it
    sql.Column("rollout", sql.String(16)),
)
ORIGIN = sql.Table(
    "origin",  # what the records of a conversation have in common, stored once
    _METADATA,
    sql.Column("number", _NUMBER, primary_key=True),
    sql.Column("digest", sql.LargeBinary(16), nullable=False, unique=True),
    sql.Column("conversation", sql.String(64), nullable=False),
    sql.Column("user", sql.String(64), nullable=False),
    sql.Column("key", sql.String(64), nullable=False),
    sql.Column("parameters", sql.Text),  # JSON without what is as by default; null where they are not known
    sql.Column("metadata", sql.Text),  # JSON; null where there is none
    sql.Column("prompt", _NUMBER),
)
PROMPT = sql.Table(
    "prompt",  # what the system says at the beginning, stored once for all conversations
    _METADATA,
    sql.Column("number", _NUMBER, primary_key=True),
    sql.Column("digest", sql.LargeBinary(16), nullable=False, unique=True),
    sql.Column("text", sql.Text, nullable=False),
)
FEEDBACK = sql.Table(
    "feedback",
    _METADATA,
    sql.Column("record_id", sql.String(64), primary_key=True),
    sql.Column("by", sql.String(64), primary_key=True),
    sql.Column("thumb", sql.String(4), nullable=False),
    sql.Column("comment", sql.Text, nullable=False),
    sql.Column("correction", sql.Text, nullable=False, server_default=""),
    sql.Column("given_at", sql.DateTime, nullable=False),
)
SHADOW = sql.Table(
    "shadow",  # what a challenger answered unseen
    _METADATA,
    sql.Column("record_id", sql.String(64), primary_key=True),
    sql.Column("model_version", sql.String(200), primary_key=True),
    sql.Column("answer", sql.Text, nullable=False),
    sql.Column("prompt_tokens", sql.Integer, nullable=False),
    sql.Column("completion_tokens", sql.Integer, nullable=False),
    sql.Column("finished", sql.Boolean, nullable=False),
    sql.Column("stored_at", sql.DateTime, nullable=False),  # naive, in UTC
)
REQUESTS = sql.Table(
    "requests",  # how many were answered and how many failed, by the minute
    _METADATA,
    sql.Column("registered_model", sql.String(200), primary_key=True),
    sql.Column("minute", sql.DateTime, primary_key=True),  # naive, in UTC
    sql.Column("answered", sql.Integer, nullable=False),
    sql.Column("failed", sql.Integer, nullable=False),
)
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")  # of migrations/, oldest first
MIGRATIONS = Migrations(
    what="the traffic store",
    folder=Path(__file__).parent / "migrations",
    revisions=REVISIONS,
    version_table="traffic_version",
    lock=7_264_150_931,
)
# Pages that several records fit on, where the file is new; and the log is synced at each commit, so that a record
# survives a power cut.
_DURABLE = ("page_size=32768", *IN_WAL_MODE, "synchronous=FULL")


def open_database(url_or_path: str | Path) -> tuple[sql.Engine, sql.Engine]:
    """An engine for reading the store's database, whose tables are there and of this release, and one for writing.

    Both are held open (``let_go``).

    Those who read wait for nobody. A transaction that writes reads first what it writes beside, so on SQLite it takes
    the right to write when it begins.

    Raises:
        UserError: the database is neither on SQLite nor on PostgreSQL, or is of a newer release.
        sqlalchemy.exc.SQLAlchemyError, OSError: it cannot be opened.
        ImportError: PostgreSQL's driver is not installed.
    """
    url = _url(url_or_path)
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = sqlite_engine(url, pragmas=_DURABLE) if is_sqlite else postgresql_engine(url)
    writing = sqlite_engine(url, immediate=True, pragmas=_DURABLE) if is_sqlite else engine
    if not MIGRATIONS.are_done(engine):
        upgrading = sqlite_engine(url, immediate=True, pooled=False, pragmas=_DURABLE) if is_sqlite else engine
        MIGRATIONS.upgrade(upgrading, database_name(url_or_path))
    return hold_open(engine), hold_open(writing)


def _url(url_or_path: str | Path) -> sql.URL:
    if "://" in str(url_or_path):
        return database_url(str(url_or_path), what=MIGRATIONS.what, backends=("sqlite", "postgresql"))
    path = Path(url_or_path).expanduser().resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite_url(path)
