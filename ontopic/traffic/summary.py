"""What a traffic store holds, in numbers."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


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

    @property
    def n(self) -> int:
        """How many records."""
        return sum(version.n for version in self.versions)
