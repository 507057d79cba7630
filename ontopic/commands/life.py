"""The assistant's life on one time axis: what each store knows of it, as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.commands.record_page import entry_in_words
from ontopic.monitoring.alerts import Alert
from ontopic.monitoring.window import Window
from ontopic.registry.promotion_record import Entry, EntryKind
from ontopic.registry.promotions import Promotion
from ontopic.watch.actions import Action

Lane = Literal["champion", "window", "alert", "training", "gate", "approval", "rollout and canary", "record"]
Tone = Literal["good", "bad", "warn", "plain"]
LANES: tuple[Lane, ...] = ("champion", "alert", "training", "gate", "approval", "rollout and canary")
"""Those that are drawn as lines of marks and bars; windows are drawn as a chart."""
_OF_RECORD: dict[EntryKind, tuple[Lane, Tone]] = {
    "rehearsal": ("gate", "bad"),
    "look": ("gate", "plain"),
    "opening": ("gate", "plain"),
    "refusal": ("gate", "bad"),
    "promotion": ("champion", "good"),
    "rollback": ("champion", "bad"),
    "waiting": ("approval", "warn"),
    "approval": ("approval", "good"),
    "rejection": ("approval", "bad"),
    "expiry": ("approval", "bad"),
    "rollout": ("rollout and canary", "plain"),
}
_OF_STATUS: dict[str, Tone] = {"ok": "good", "suspected": "warn", "detected": "bad"}
# What the promotion record does not say.
_OF_ACTIONS: dict[str, tuple[Lane, Tone]] = {
    "retraining": ("training", "plain"),
    "failed": ("training", "bad"),
    "stayed": ("rollout and canary", "good"),
    "would_retrain": ("training", "plain"),
    "would_roll_back": ("rollout and canary", "warn"),
}
_TRAINED: tuple[EntryKind, ...] = ("rehearsal", "look", "gate")


class Event(BaseModel):
    """Something that happened.

    Attributes:
        until: when it was over; ``None`` for a moment, and for what goes on where ``lasts``.
        version: of the model that it is about; empty where it is about none.
        what: in a few words; ``why``: in a sentence or two, with a stranger's text in it.
        by: who did it; empty where nobody is named.
        page: path of a report on it; empty where there is none.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    until: datetime | None = None
    lasts: bool = False
    lane: Lane
    tone: Tone
    version: str
    what: str
    why: str = ""
    by: str = ""
    page: str = ""


def life_of(
    *,
    windows: Sequence[Window],
    alerts: Sequence[Alert],
    actions: Sequence[Action],
    entries: Sequence[Entry],
    promotions: Sequence[Promotion],
) -> list[Event]:
    """All that happened, the oldest first.

    Args:
        entries: of the promotion record, on one registered model.
        promotions: of the registry, which knows those from before the record began too.
    """
    events = [
        *_of_windows(windows),
        *_of_alerts(alerts),
        *_of_actions(actions),
        *_of_entries(entries),
        *_trained(entries),
        *_reigns(promotions),
    ]
    return sorted(events, key=lambda event: event.at)


def _of_windows(windows: Sequence[Window]) -> Iterator[Event]:
    for window in windows:
        if window.result is not None:
            yield Event(
                at=window.start,
                until=window.end,
                lane="window",
                tone=_OF_STATUS.get(window.result.status, "plain"),
                version=window.model_version,
                what=f"window {window.result.status}",
                why=window.result.named_score
                + (f"; {window.result.unknown_because}" if window.result.unknown_because else ""),
                page=window.result.report,
            )


def _of_alerts(alerts: Sequence[Alert]) -> Iterator[Event]:
    for alert in alerts:
        over = f"; over {alert.closed_at:%Y-%m-%d %H:%M} UTC ({alert.closed_by})" if alert.closed_at else ""
        yield Event(
            at=alert.raised_at,
            until=alert.closed_at,
            lasts=alert.closed_at is None,
            lane="alert",
            tone="bad" if alert.severity == "critical" else "warn",
            version="",
            what=f"alert {alert.id}, {alert.severity}",
            why=f"{alert.text}{over}",
        )


def _of_actions(actions: Sequence[Action]) -> Iterator[Event]:
    for action in actions:
        if action.kind in _OF_ACTIONS:
            lane, tone = _OF_ACTIONS[action.kind]
            what = "canary stayed" if action.kind == "stayed" else action.kind.replace("_", " ")
            yield Event(
                at=action.at, lane=lane, tone=tone, version=action.version, what=what, why=action.why, by="watch"
            )


def _of_entries(entries: Sequence[Entry]) -> Iterator[Event]:
    for entry in entries:
        lane, tone = _OF_RECORD.get(entry.kind, ("record", "plain"))
        if entry.kind == "gate":
            lane, tone = "gate", "good" if entry.facts.get("gate") == "passed" else "bad"
        yield Event(
            at=entry.at,
            lane=lane,
            tone=tone,
            version=entry.version,
            what=entry_in_words(entry),
            why=entry.why,
            by=entry.by,
        )


def _trained(entries: Sequence[Entry]) -> Iterator[Event]:
    """Each challenger, at the time of the first entry on it: it was trained by then."""
    seen = set[str]()
    for entry in entries:
        if entry.kind in _TRAINED and entry.version not in seen:
            seen.add(entry.version)
            gates = (each for each in entries if each.kind == "gate" and each.version == entry.version)
            facts = next((each.facts for each in gates), {})
            data = facts.get("training_data")
            pairs = data.get("preferences") if isinstance(data, dict) else None
            why = f"trained by then, on {pairs} pairs" if pairs else "trained by then"
            by = facts.get("trained_by")
            yield Event(
                at=entry.at,
                lane="training",
                tone="plain",
                version=entry.version,
                what="challenger",
                why=why,
                by=by if isinstance(by, str) else "",
            )


def _reigns(promotions: Sequence[Promotion]) -> Iterator[Event]:
    """From when to when each version was the champion."""
    for promotion, after in zip(promotions, [*promotions[1:], None], strict=True):
        yield Event(
            at=promotion.at,
            until=after.at if after else None,
            lasts=after is None,
            lane="champion",
            tone="plain",
            version=promotion.version,
            what="champion",
            why=f"until {after.at:%Y-%m-%d %H:%M} UTC" if after else "until now",
            by=promotion.by if promotion.entry is None else "",
        )
