"""The API keys of a service: made, listed, revoked and looked up."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import IntegrityError

from ontopic.errors import UserError
from ontopic.state.sqlite_file import naive_utc
from ontopic.state.tables import Tables

METADATA = sql.MetaData()
_KEYS = sql.Table(
    "keys",
    METADATA,
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
_LIVING = _KEYS.c.revoked_at.is_(None)
sql.Index("one_a_name", _KEYS.c.name, unique=True, sqlite_where=_LIVING, postgresql_where=_LIVING)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX = 8  # characters of a key that are kept: 30 of its 256 random bits


class KeyFacts(BaseModel):
    """What may be shown of an API key.

    Attributes:
        prefix: its first characters, to tell it from others.
        requests_per_minute, tokens_per_minute: its limits; ``None`` for no limit.
        made_at, expires_at, revoked_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    prefix: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    made_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyShown(KeyFacts):
    """An API key as it may be shown, and whether it is accepted now."""

    state: Literal["active", "expired", "revoked"]


class Key(KeyFacts):
    """What is known of an API key; the key itself is not.

    Attributes:
        sha256: of the key, in hex.
    """

    sha256: str

    def state(self, now: datetime) -> Literal["active", "expired", "revoked"]:
        """Whether it is accepted at ``now``, and if not, why."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class NameTakenError(UserError):
    """There is a key of this name, which is not revoked."""


class KeyStore(Tables):
    """API keys. Several processes may use the same ones at once; what one changes the others read.

    Args:
        at: as ``Tables`` takes it.

    Raises:
        UserError: as ``Tables``.
    """

    def __init__(self, at: Path | str) -> None:
        super().__init__(at, METADATA, what="the API keys", timeout_s=5, pooled=False)

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
            UserError: the name is not such a name, or is that of a key which is not revoked.
        """
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name[:80]!r} cannot name a key; give up to 64 letters, digits, dots, dashes and underscores"
            )
        key, now = new_key(), naive_utc(datetime.now(UTC))
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
            raise NameTakenError(f"there is a key {name} already; revoke it first, or choose another name") from error
        return key

    @contextmanager
    def temporary(self, name: str, *, lifetime: timedelta) -> Iterator[str]:
        """A key for as long as the block lasts; then nothing of it is left. A running service knows it within a second.

        Args:
            name: as ``make`` takes it; where there is a key of this name, it gets a number behind it.
            lifetime: after which it is not accepted any more, should this process be killed.

        Raises:
            UserError: the name is not a name for a key.
        """
        key = self._make_numbered(name, lifetime)
        try:
            yield key
        finally:
            with self._engine.begin() as connection:
                connection.execute(sql.delete(_KEYS).where(_KEYS.c.sha256 == digest(key)))

    def _make_numbered(self, name: str, lifetime: timedelta) -> str:
        number = 1
        while True:
            try:
                return self.make(name if number == 1 else f"{name}-{number}", expires_in=lifetime)
            except NameTakenError:
                number += 1

    def all(self) -> list[Key]:
        """All keys that were ever made, the oldest first, but for temporary ones that are over.

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
        living = sql.and_(_KEYS.c.name == name, _KEYS.c.revoked_at.is_(None))
        revocation = sql.update(_KEYS).where(living).values(revoked_at=naive_utc(datetime.now(UTC)))
        with self._engine.begin() as connection:
            revoked = connection.execute(revocation).rowcount
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
