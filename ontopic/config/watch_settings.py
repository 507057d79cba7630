"""The sections ``watch`` and ``promotion`` of the configuration file."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator

from ontopic.config.section import Duration, Section

SHADOW, ALL = 0, 100
"""Percentages of conversations: of a stage in which nobody sees what the challenger answers, and of the last one."""


class WatchSettings(Section):
    """When ``watch`` acts by itself."""

    cooldown: Duration = timedelta(hours=12)
    """How long nothing is retrained after a retraining, a promotion or a rollback."""
    retrainings_a_day: int = Field(default=2, ge=0)
    """The most retrainings in 24 hours."""
    canary: Duration = timedelta(hours=24)
    """How long after a promotion the new champion is compared with its predecessor, and the least that a stage of a
    rollout lasts."""
    training_records: int = Field(default=1000, ge=2)
    """How many of the champion's newest judged records a retraining learns from."""


class PromotionSettings(Section):
    """Who must agree before a challenger that passed the gate takes the champion's place, and by which stages."""

    approval: Literal["automatic", "one", "two"] = "automatic"
    """Whether the gate alone decides (``automatic``), or the challenger waits for ``one`` person who did not train it,
    or for ``two`` of whom one at most did."""
    expires: Duration = Field(default=timedelta(days=7), gt=timedelta(0))
    """How long a challenger waits; after that its approvals count no longer."""
    rollout: Literal["all", "shadow"] | list[Annotated[int, Field(ge=1, le=100)]] = "all"
    """How the challenger takes the champion's place: ``all`` at once; ``shadow``, after it has answered in the
    background what users asked, which nobody sees; or by rising percentages of the conversations that end with 100,
    such as ``[5, 25, 100]``."""

    @field_validator("rollout")
    @classmethod
    def _rises_to_all(cls, rollout: str | list[int]) -> str | list[int]:
        if isinstance(rollout, list) and (rollout != sorted(set(rollout)) or rollout[-1:] != [ALL]):
            raise ValueError(f"{rollout} must rise and end with 100, such as [5, 25, 100]")
        return rollout

    @property
    def stages(self) -> tuple[int, ...]:
        """The percentage of conversations in each stage; the last one, ``ALL``, begins with the promotion."""
        if isinstance(self.rollout, list):
            return tuple(self.rollout)
        return (SHADOW, ALL) if self.rollout == "shadow" else (ALL,)
