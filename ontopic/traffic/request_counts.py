"""How many chat requests a service answered, and how many failed: by the minute, beside the records.

A request that failed has no record, so that the records alone say nothing of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.state.database import insert_into, let_go
from ontopic.state.sqlite_file import naive_utc
from ontopic.traffic.schema import REQUESTS, open_database

KEPT_FOR = timedelta(days=90)


class RequestCount(BaseModel):
    """The requests of one minute, by when they ended; those that the client got wrong, or gave up, are not among them.

    Attributes:
        minute: its beginning, in UTC.
        failed: which got a status of 5xx, or an error in place of a stream's end.
    """

    model_config = ConfigDict(frozen=True)
    minute: datetime
    answered: int = 0
    failed: int = 0


class RequestCounts:
    """The counts of one registered model's requests; several processes may add to the same ones.

    Args:
        url_or_path: of the traffic store.
    """

    def __init__(self, url_or_path: str | Path, registered_model: str) -> None:
        self._registered_model = registered_model
        self._engine, self._writing = open_database(url_or_path)

    def add(self, counts: Sequence[RequestCount]) -> None:
        """Add to what is counted of these minutes, and forget those of long ago.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: they could not be stored; then nothing is.
        """
        old = naive_utc(datetime.now(UTC) - KEPT_FOR)
        with self._writing.begin() as connection:
            for each in counts:
                row = each.model_dump() | {"registered_model": self._registered_model, "minute": naive_utc(each.minute)}
                more = {name: REQUESTS.c[name] + getattr(each, name) for name in ("answered", "failed")}
                keys = ["registered_model", "minute"]
                new = insert_into(connection, REQUESTS).values(row)
                connection.execute(new.on_conflict_do_update(index_elements=keys, set_=more))
            connection.execute(sql.delete(REQUESTS).where(self._own, REQUESTS.c.minute < old))

    def between(self, since: datetime, until: datetime) -> list[RequestCount]:
        """The minutes that begin at ``since`` or later and before ``until``, the newest first."""
        within = sql.and_(REQUESTS.c.minute >= naive_utc(since), REQUESTS.c.minute < naive_utc(until))
        query = sql.select(REQUESTS).where(self._own, within).order_by(REQUESTS.c.minute.desc())
        with self._engine.connect() as connection:
            return [
                RequestCount(minute=row.minute.replace(tzinfo=UTC), answered=row.answered, failed=row.failed)
                for row in connection.execute(query)
            ]

    @property
    def _own(self) -> sql.ColumnElement[bool]:
        return REQUESTS.c.registered_model == self._registered_model

    def close(self) -> None:
        """Close all connections."""
        let_go(self._engine)
        let_go(self._writing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
