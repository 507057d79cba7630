"""What a traffic store holds, in numbers."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict, computed_field

from ontopic.traffic.redaction import KINDS
from ontopic.traffic.schema import TRAFFIC


class VersionTraffic(BaseModel):
    """What one model version was asked: how many records, and the times (UTC) of the first and the last."""

    model_config = ConfigDict(frozen=True)
    registered_model: str
    model_version: str
    n: int
    first: datetime
    last: datetime


class TrafficSummary(BaseModel):
    """What a store holds of one registered model, or of all.

    Attributes:
        versions: in the order in which they were first asked.
        redacted: how much personal data of each kind was taken out, of the kinds that occur.
        others: how many records of each other registered model there are.
    """

    model_config = ConfigDict(frozen=True)
    versions: list[VersionTraffic]
    redacted: dict[str, int]
    others: dict[str, int]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def n(self) -> int:
        """How many records."""
        return sum(version.n for version in self.versions)


def summarise(connection: sql.Connection, own: sql.ColumnElement[bool]) -> TrafficSummary:
    """What a store holds of the registered model whose records these are."""
    first, last = sql.func.min(TRAFFIC.c.asked_at), sql.func.max(TRAFFIC.c.asked_at)
    keys = (TRAFFIC.c.registered_model, TRAFFIC.c.model_version)
    versions = sql.select(*keys, sql.func.count(), first, last).where(own)
    versions = versions.group_by(*keys).order_by(first, *keys)
    sums = sql.select(*(sql.func.sum(TRAFFIC.c[f"redacted_{kind}"]) for kind in KINDS)).where(own)
    others = sql.select(TRAFFIC.c.registered_model, sql.func.count()).where(sql.not_(own))
    others = others.group_by(TRAFFIC.c.registered_model).order_by(TRAFFIC.c.registered_model)
    rows, redacted = connection.execute(versions).all(), connection.execute(sums).one()
    counts = {name: int(n) for name, n in connection.execute(others)}
    return TrafficSummary(
        versions=[
            VersionTraffic(
                registered_model=model,
                model_version=version,
                n=n,
                first=first.replace(tzinfo=UTC),
                last=last.replace(tzinfo=UTC),
            )
            for model, version, n, first, last in rows
        ],
        redacted={kind: int(n) for kind, n in zip(KINDS, redacted, strict=True) if n},
        others=counts,
    )


def hours_of(connection: sql.Connection, own: sql.ColumnElement[bool]) -> list[tuple[datetime, int, int]]:
    """The hours in which these records were asked, by time: when each begins (UTC), how many they are, and the number
    of the newest, which changes with each that comes."""
    at = TRAFFIC.c.asked_at
    is_sqlite = connection.dialect.name == "sqlite"
    begun = sql.func.strftime("%Y-%m-%dT%H:00", at) if is_sqlite else sql.func.to_char(at, 'YYYY-MM-DD"T"HH24:00')
    hour = begun.label("hour")
    query = sql.select(hour, sql.func.count(), sql.func.max(TRAFFIC.c.seq)).where(own).group_by(hour).order_by(hour)
    found = connection.execute(query)
    return [(datetime.fromisoformat(of).replace(tzinfo=UTC), int(n), int(last)) for of, n, last in found]
