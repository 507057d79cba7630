"""What judging traffic has cost: an entry whenever a judge that asks an LLM was asked, kept with the windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.monitoring.tables import SPENT
from ontopic.state.sqlite_file import naive_utc

if TYPE_CHECKING:
    from ontopic.judges.judge import Judge

DAY = timedelta(hours=24)


class Spent(BaseModel):
    """What judges have used.

    Attributes:
        usd: US dollars, of the entries whose price is known.
        unpriced: entries whose price is not known.
    """

    model_config = ConfigDict(frozen=True)
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0


class JudgeCost(BaseModel):
    """What all judges of the traffic cost in the 24 hours before a window was closed, and the most that they may.

    Attributes:
        most_usd: ``None`` where no limit is set.
    """

    model_config = ConfigDict(frozen=True)
    day: Spent
    most_usd: float | None = None

    @property
    def over(self) -> bool:
        """Whether it is more than it may be."""
        return self.most_usd is not None and self.day.usd > self.most_usd

    @property
    def in_words(self) -> str:
        """A part of a sentence for pages and alerts."""
        day = self.day
        said = f"judging cost ${day.usd:,.2f} in 24 hours for {day.requests:,} replies of LLMs"
        if day.unpriced:
            said += f", without those of {day.unpriced:,} entries whose price is not known"
        return said + ("" if self.most_usd is None else f"; the most is ${self.most_usd:,.2f}")


class Spending:
    """The entries of one registered model's traffic.

    Args:
        engine: of the tables of windows.
    """

    def __init__(self, engine: sql.Engine, registered_model: str) -> None:
        self._engine, self._registered_model = engine, registered_model

    @contextmanager
    def of(self, judge: Judge) -> Iterator[None]:
        """Enter what the judge uses within the block, also where that ends in an error."""
        before = replace(judge.account)
        try:
            yield
        finally:
            self._add(judge, before)

    def _add(self, judge: Judge, before: object) -> None:
        after, names = judge.account, ("requests", "prompt_tokens", "completion_tokens")
        used = {name: getattr(after, name) - getattr(before, name) for name in names}
        if not any(used.values()):
            return
        usd = None if after.usd is None else after.usd - (getattr(before, "usd", None) or 0.0)
        row = {"registered_model": self._registered_model, "at": naive_utc(datetime.now(UTC)), "judge_id": judge.id}
        with self._engine.begin() as connection:
            connection.execute(sql.insert(SPENT).values(row | used | {"usd": usd}))

    def since(self, at: datetime) -> Spent:
        """What was used at that time or later."""
        return self._sum(SPENT.c.at >= naive_utc(at))

    def total(self) -> Spent:
        """What was used ever since the first window."""
        return self._sum(sql.true())

    def _sum(self, which: sql.ColumnElement[bool]) -> Spent:
        names = [name for name in Spent.model_fields if name in SPENT.c]
        sums = [sql.func.coalesce(sql.func.sum(SPENT.c[name]), 0).label(name) for name in names]
        unpriced = (sql.func.count() - sql.func.count(SPENT.c.usd)).label("unpriced")
        own = SPENT.c.registered_model == self._registered_model
        with self._engine.connect() as connection:
            return Spent.model_validate(
                connection.execute(sql.select(*sums, unpriced).where(own, which)).one()._asdict()
            )
