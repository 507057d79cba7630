"""The section ``alerts`` of the configuration file."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from ontopic.config.section import Duration, Section

AlertEvent = Literal[
    "suspected",
    "detected",
    "unjudged",
    "unjudged_language",
    "misfit",
    "disliked",
    "refused",
    "waiting",
    "promoted",
    "rolled_back",
    "failed",
]
Severity = Literal["info", "warning", "critical"]
Reset = Literal["auto", "manual"]


class AlertSettings(Section):
    """When an alert is raised, how grave it is, what ends it and who hears of it."""

    name: str = Field(min_length=1, max_length=60)
    """The rule's own name; an alert that is open belongs to its rule by this name."""
    events: list[AlertEvent] = Field(min_length=1)
    """What counts: of a window ``suspected`` (a low score), ``detected`` (by the chart), ``unjudged`` (few verdicts),
    ``unjudged_language`` (in one language), ``misfit`` (of the judge's card) or ``disliked`` (by thumbs); of the loop
    ``refused``, ``waiting`` (for approval), ``promoted``, ``rolled_back`` or ``failed``."""
    count: int = Field(default=1, ge=1)
    """How many such events raise it."""
    period: Duration | None = Field(default=None, gt=timedelta(0))
    """The time within which they must come, such as ``24h`` or ``7d``; without it there is no limit."""
    severity: Severity = "warning"
    """How grave it is."""
    reset: Reset = "auto"
    """``auto``: a healthy window closes what a window raised, and what the loop raised is closed at once; ``manual``:
    it stays open until ``python run.py alerts close ID``."""
    notify: list[str] = Field(default=[], repr=False)  # a URL holds secrets
    """Who hears of it: Apprise URLs, or ``env:NAME`` for one that is in an environment variable."""
