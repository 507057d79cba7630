"""The API keys of a service: made, listed, revoked and looked up."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ontopic.errors import UserError

_KEYS = sql.Table(
    "keys",
    sql.MetaData(),
    sql.Column("sha256", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(64), nullable=False),
    sql.Column("prefix", sql.String(16), nullable=False),
    sql.Column("requests_per_minute", sql.Integer),
    sql.Column("tokens_per_minute", sql.Integer),
    sql.Column("made_at", sql.DateTime, nullable=False),  # naive, in UTC: SQLite keeps no time zone
    sql.Column("expires_at", sql.DateTime),
    sql.Column("revoked_at", sql.DateTime),
)
# A revoked key stays listed, and its name may be given again.
_ONE_A_NAME = sql.Index("one_a_name", _KEYS.c.name, unique=True, sqlite_where=_KEYS.c.revoked_at.is_(None))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = 8  # characters of a key that are kept: 30 of its 256 random bits


class Key(BaseModel):
    """What is known of an API key; the key itself is not.

    Attributes:
        sha256: of the key, in hex.
        prefix: its first characters, to tell it from others.
        requests_per_minute, tokens_per_minute: its limits; ``None`` for no limit.
        made_at, expires_at, revoked_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    sha256: str
    name: str
    prefix: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Whether it is accepted at ``now``, and if not, why."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class KeyStore:
    """API keys in an SQLite file. Several processes may use it at once; what one changes the others read.

    Args:
        path: file and folder are made where missing, the file readable by its owner alone.

    Raises:
        UserError: the file cannot be opened, or is no such database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            # A connection a call: a file that is put in this one's place is seen.
            self._engine = sql.create_engine(
                sql.URL.create("sqlite", database=str(path)),
                poolclass=sql.NullPool,
                connect_args={"timeout": 5},
                hide_parameters=True,
            )
            with self._engine.begin() as connection:
                connection.execute(sql.schema.CreateTable(_KEYS, if_not_exists=True))
                connection.execute(sql.schema.CreateIndex(_ONE_A_NAME, if_not_exists=True))
        except (SQLAlchemyError, OSError) as error:
            raise UserError(
                f"{path}: the API keys cannot be read ({str(error).splitlines()[0]}); check that it is a database that "
                "`keys make` made and that it may be written"
            ) from error

    def make(
        self,
        name: str,
        requests_per_minute: int | None = None,
        *,
        tokens_per_minute: int | None = None,
        expires_in: timedelta | None = None,
    ) -> str:
        """Make a key.

        Args:
            name: up to 64 letters, digits, dots, dashes and underscores.
            expires_in: from now; ``None`` for never.

        Returns:
            The key, which can't be read again.

        Raises:
            UserError: the name is none, or is that of a key which is not revoked.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name[:80]!r} is no name for a key; give up to 64 letters, digits, dots, dashes and underscores"
            )
        key, now = new_key(), datetime.now(UTC).replace(tzinfo=None)
        row = {
            "sha256": digest(key),
            "name": name,
            "prefix": key[:_PREFIX],
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "made_at": now,
            "expires_at": None if expires_in is None else now + expires_in,
        }
        try:
            with self._engine.begin() as connection:
                connection.execute(sql.insert(_KEYS).values(row))
        except IntegrityError as error:
            raise UserError(f"there is a key {name} already; revoke it first, or choose another name") from error
        return key

    def all(self) -> list[Key]:
        """All keys that were ever made, the oldest first.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: they cannot be read.
        """
        with self._engine.connect() as connection:
            return [_key(row) for row in connection.execute(sql.select(_KEYS).order_by(_KEYS.c.made_at, _KEYS.c.name))]

    def revoke(self, name: str) -> None:
        """Make a key invalid for good.

        Raises:
            UserError: there is no such key, or it was revoked before.
        """
        now = datetime.now(UTC).replace(tzinfo=None)
        living = sql.and_(_KEYS.c.name == name, _KEYS.c.revoked_at.is_(None))
        with self._engine.begin() as connection:
            revoked = connection.execute(sql.update(_KEYS).where(living).values(revoked_at=now)).rowcount
        if not revoked:
            raise UserError(f"there is no key {name[:80]!r} to revoke; python run.py keys list shows them")


def new_key() -> str:
    """A new API key, of 256 random bits."""
    return f"ot-{secrets.token_urlsafe(32)}"


def digest(key: str) -> str:
    """The SHA-256 of a key, in hex.

    A slow, salted hash would protect a password, which can be guessed. 256 random bits can't be, however fast each
    guess is, and a fast hash is looked up with every request.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def _key(row: Any) -> Key:
    values = row._asdict()
    for name in ("made_at", "expires_at", "revoked_at"):
        values[name] = values[name] and values[name].replace(tzinfo=UTC)
    return Key(**values)
