"""Which service has how many records waiting in its spool, in the database that machines share: also of a dead one."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.state.database import insert_into, open_state
from ontopic.state.sqlite_file import naive_utc
from ontopic.state.workspace import Workspace
from ontopic.visible import visible

TELLS_S = 30.0
"""How often a service tells of its spool at least, in seconds."""
_SILENT = timedelta(seconds=4 * TELLS_S)
SPOOLS = sql.Table(
    "spools",
    sql.MetaData(),
    sql.Column("replica", sql.String, primary_key=True),  # its machine, and the folder there
    sql.Column("waiting", sql.Integer, nullable=False),
    sql.Column("since", sql.DateTime),  # naive, in UTC, as are all; null where none waits
    sql.Column("told_at", sql.DateTime, nullable=False),
)


class SpoolStands(BaseModel):
    """What is known of one service's spool.

    Attributes:
        replica: its machine, and the folder of the spool there.
        waiting: how many records were waiting when it told last.
        since: when the first of them came; ``None`` where none was waiting. In UTC, as ``told_at``.
        silent: whether it has not told for too long: it is dead, or reaches no database.
    """

    model_config = ConfigDict(frozen=True)
    replica: str
    waiting: int
    since: datetime | None
    told_at: datetime
    silent: bool

    @property
    def in_words(self) -> str:
        """How it stands, and what to do."""
        since = f" since {self.since:%Y-%m-%d %H:%M} UTC" if self.since else ""
        said = f"{self.waiting:,} records wait in {visible(self.replica)}{since}"
        if not self.silent:
            return said
        return (
            f"{said}, or more: it was heard of last at {self.told_at:%Y-%m-%d %H:%M} UTC; a service that is started on "
            "that folder stores them"
        )


class SpoolIndex:
    """The row of one spool.

    Args:
        url: of the database that machines share.
        folder: of the spool.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self.replica = url, f"{socket.gethostname()}:{folder.resolve()}"

    @classmethod
    def of(cls, folder: Path) -> SpoolIndex | None:
        """That of a spool; ``None`` where machines share nothing."""
        url = Workspace(root=folder.parent).state_url
        return None if url is None else cls(url, folder)

    def tell(self, waiting: int, *, now: datetime | None = None) -> None:
        """Say how many records wait now.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, UserError: the database can't be written.
        """
        at = naive_utc(now or datetime.now(UTC))
        row: dict[str, Any] = {"waiting": waiting, "since": at if waiting else None, "told_at": at}
        with open_state(self._url).begin() as connection:
            new = insert_into(connection, SPOOLS).values(replica=self.replica, **row)
            if waiting:
                row["since"] = sql.func.coalesce(SPOOLS.c.since, at)
            connection.execute(new.on_conflict_do_update(index_elements=["replica"], set_=row))

    def leave(self) -> None:
        """Say that the service has ended and has left nothing. Raises what ``tell`` raises."""
        with open_state(self._url).begin() as connection:
            connection.execute(sql.delete(SPOOLS).where(SPOOLS.c.replica == self.replica))


def known_spools(url: str, *, now: datetime | None = None) -> list[SpoolStands]:
    """The spools in which records wait, or may wait as their service is not heard of any more."""
    at = now or datetime.now(UTC)
    with open_state(url).connect() as connection:
        rows = connection.execute(sql.select(SPOOLS).order_by(SPOOLS.c.replica)).all()
    found = [
        SpoolStands(
            replica=row.replica,
            waiting=row.waiting,
            since=row.since and row.since.replace(tzinfo=UTC),
            told_at=row.told_at.replace(tzinfo=UTC),
            silent=at - row.told_at.replace(tzinfo=UTC) > _SILENT,
        )
        for row in rows
    ]
    return [each for each in found if each.waiting or each.silent]
