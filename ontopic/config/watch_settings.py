"""The sections ``watch`` and ``promotion`` of the configuration file."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from ontopic.config.section import Duration, Section


class WatchSettings(Section):
    """When ``watch`` acts by itself."""

    cooldown: Duration = timedelta(hours=12)
    """How long nothing is retrained after a retraining, a promotion or a rollback."""
    retrainings_a_day: int = Field(default=2, ge=0)
    """The most retrainings in 24 hours."""
    canary: Duration = timedelta(hours=24)
    """How long after a promotion the new champion is compared with its predecessor."""
    training_records: int = Field(default=1000, ge=2)
    """How many of the champion's newest judged records a retraining learns from."""


class PromotionSettings(Section):
    """Who must agree before a challenger that passed the gate takes the champion's place."""

    approval: Literal["automatic", "one", "two"] = "automatic"
    """Whether the gate alone decides (``automatic``), or the challenger waits for ``one`` person who did not train it,
    or for ``two`` of whom one at most did."""
    expires: Duration = Field(default=timedelta(days=7), gt=timedelta(0))
    """How long a challenger waits; after that its approvals count no longer."""
