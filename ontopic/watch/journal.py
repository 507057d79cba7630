"""What the automatic loop does is written down, printed and, where a rule asks for it, raised as an alert."""

from __future__ import annotations

from collections.abc import Callable

from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.watch.actions import Action, ActionStore


class Journal:
    """The actions so far, and who hears of the next ones.

    Args:
        tell: called with a line for the reader.
        dry_run: whether actions are not done: each is written down as one that would have been, once a window.
    """

    def __init__(
        self, actions: ActionStore, alerts: Alerts, *, tell: Callable[[str], object], dry_run: bool = False
    ) -> None:
        self.actions, self.tell, self.dry_run = actions, tell, dry_run
        self._alerts = alerts
        self._told: set[str] = set()

    def done(self, action: Action) -> Action:
        """Write an action down, and say so."""
        if action.kind in ("refused", "waiting", "promoted", "rolled_back", "failed"):
            subject = f"version {action.version}, {action.subject}"
            self.raised(self._alerts.event(action.kind, subject, at=action.at, text=action.why))
        self.tell(_line(action))
        self._told.add(action.subject + _line(action))
        return self.actions.add(action)

    def would(self, action: Action) -> Action | None:
        """Write down what a dry run would do, once a window; every process says it anew.

        Returns:
            ``None`` where it was written down before.
        """
        if any((a.kind, a.subject) == (action.kind, action.subject) for a in self.actions.newest()):
            self.tell_once(_line(action), subject=action.subject)
            return None
        return self.done(action)

    def raised(self, alerts: list[Alert]) -> None:
        """Say which alerts were raised."""
        for alert in alerts:
            self.tell(f"Alert {alert.id} ({alert.severity}, {alert.rule}): {alert.text}")

    def tell_once(self, line: str, *, subject: str) -> None:
        """Say a line, once for its subject."""
        if subject + line not in self._told:
            self._told.add(subject + line)
            self.tell(line)


def _line(action: Action) -> str:
    return f"{action.kind.replace('_', ' ').capitalize()}: version {action.version}: {action.why}"
