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
    "drift",
    "over_refusal",
    "leak",
    "slow",
    "errors",
    "judge_cost",
    "refused",
    "waiting",
    "promoted",
    "rolled_back",
    "failed",
]
OF_THE_LOOP: tuple[AlertEvent, ...] = ("refused", "waiting", "promoted", "rolled_back", "failed")
"""What the loop did: it has happened, and does not last."""
Severity = Literal["info", "warning", "critical"]
Reset = Literal["auto", "manual"]


class AlertSettings(Section):
    """When an alert is raised, how grave it is, what ends it and who hears of it."""

    name: str = Field(min_length=1, max_length=60)
    """The rule's own name; an alert that is open belongs to its rule by this name."""
    events: list[AlertEvent] = Field(min_length=1)
    """What counts: of a window ``suspected`` (low score), ``detected`` (chart), ``over_refusal``, ``leak``,
    ``drift``, ``slow``, ``unjudged``, ``unjudged_language``, ``misfit`` (of the judge's card), ``disliked`` (by thumbs)
    or ``judge_cost``; of requests ``errors``; of the loop ``refused``, ``waiting``, ``promoted``,
    ``rolled_back`` or ``failed``."""
    count: int = Field(default=1, ge=1)
    """How many such events raise it."""
    period: Duration | None = Field(default=None, gt=timedelta(0))
    """The time within which they must come, such as ``24h`` or ``7d``; without it there is no limit."""
    severity: Severity = "warning"
    """How grave it is."""
    reset: Reset = "auto"
    """``auto``: the window in which what raised it is over closes it, and what the loop raised is closed at once;
    ``manual``: it stays open until ``python run.py alerts close ID``."""
    notify: list[str] = Field(default=[], repr=False)  # a URL holds secrets
    """Who hears of it: Apprise URLs, or ``env:NAME`` for one that is in an environment variable."""


class MonitoringLimits(Section):
    """What traffic is held against besides the policy's limits."""

    latency_s: float | None = Field(default=None, gt=0)
    """Seconds within which 95 % of the answers must come, or the window is ``slow``; without it none is."""
    errors: float = Field(default=0.05, gt=0, lt=1)
    """The greatest share of chat requests that may fail (status 5xx); above it they raise ``errors``."""
    drift: float = Field(default=0.1, ge=0, le=1)
    """The share of questions that must be of another topic than in the first healthy windows before it is ``drift``."""
    judge_usd: float | None = Field(default=None, gt=0)
    """US dollars that judging may cost in 24 hours, which takes the judges' prices; above it a window raises
    ``judge_cost``."""


DEFAULT_RULES = (
    AlertSettings(name="off topic", events=["detected"], severity="critical"),
    AlertSettings(name="over-refusal", events=["over_refusal"]),
    AlertSettings(name="leak", events=["leak"]),
    AlertSettings(name="drift", events=["drift"]),
    AlertSettings(name="latency", events=["slow"]),
    AlertSettings(name="errors", events=["errors"], severity="critical"),
    AlertSettings(name="unjudged", events=["unjudged", "unjudged_language"]),
    AlertSettings(name="thumbs", events=["disliked"]),
    AlertSettings(name="judge's card", events=["misfit"]),
    AlertSettings(name="judge's cost", events=["judge_cost"]),
)
"""Without ``alerts`` in the configuration: a rule for everything that is watched, which notifies nobody."""
