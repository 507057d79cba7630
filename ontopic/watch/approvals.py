"""Challengers that wait for a person's approval, as the automatic loop sees them."""

from __future__ import annotations

from datetime import datetime

from ontopic.registry.approval import Waiting
from ontopic.registry.sign_off import SignOff
from ontopic.watch.actions import Action
from ontopic.watch.journal import Journal


class Approvals:
    """Keeps an eye on the challengers that wait, and says which do; the automatic loop trains no other meanwhile."""

    def __init__(self, sign_off: SignOff, journal: Journal) -> None:
        self._sign_off, self._journal = sign_off, journal

    def look(self, now: datetime) -> tuple[list[Action], list[Waiting]]:
        """Complete what persons have approved, and end what has expired or is void; a dry run only says what waits.

        Returns:
            What was done, and who goes on waiting.
        """
        if self._journal.dry_run:
            waits = [wait for wait, why in self._sign_off.waiting() if why is None]
            return [], self._told(waits)
        settled, taken_over = self._sign_off.settle(), self._taken_over(now)
        for wait, why in settled.ended:
            self._journal.tell(f"Version {wait.version} waits for approval no longer: {why}")
        done = [
            self._journal.done(
                Action(
                    at=now,
                    kind="stage" if entry.kind == "rollout" else "promoted",
                    version=entry.version,
                    subject=f"entry {entry.number} of the promotion record",
                    why=f"approved by {entry.by}",
                )
            )
            for entry in settled.promoted
        ]
        return [*taken_over, *done], self._told(settled.waiting)

    def _taken_over(self, now: datetime) -> list[Action]:
        """The outcome of a retraining that was killed once its challenger waited, written down."""
        past = self._journal.actions.newest()
        if not past or past[-1].kind != "retraining":
            return []
        asked = [e for e in self._sign_off.entries() if e.kind == "waiting" and e.at >= past[-1].at]
        return [
            self._journal.done(
                Action(at=now, kind="waiting", version=entry.version, subject=past[-1].subject, why=entry.why)
            )
            for entry in asked[-1:]
        ]

    def _told(self, waits: list[Waiting]) -> list[Waiting]:
        for wait in waits:
            self._journal.tell_once(f"Not retrained: {wait.in_words}", subject=f"entry {wait.entry.number}")
        return waits
