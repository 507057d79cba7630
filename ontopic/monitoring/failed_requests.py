"""Whether too many chat requests fail: looked at by the clock, as a service that answers nothing fills no window."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ontopic.monitoring.held_shares import ENOUGH, HeldShare, held_counts, level_of

if TYPE_CHECKING:
    from ontopic.config.alert_settings import MonitoringLimits
    from ontopic.monitoring.alerts import Alert, Alerts
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.request_counts import RequestCounts

LOOK_EVERY = timedelta(minutes=5)
_POOLED = timedelta(hours=24)


class FailedRequests:
    """Raises ``errors`` where more chat requests fail than may, and closes it once they do no more."""

    def __init__(
        self, counts: RequestCounts, *, windows: WindowStore, alerts: Alerts, limits: MonitoringLimits
    ) -> None:
        self._counts, self._windows, self._alerts, self._limits = counts, windows, alerts, limits

    def look(self, now: datetime) -> list[Alert]:
        """Look at the whole minutes since the last look, where that is long enough ago; returns the alerts raised.

        The levels of all looks in 30 days are 5 %. Where the requests are few, those before them count too.
        """
        until = now.replace(second=0, microsecond=0)
        seen = self._windows.requests_seen
        since = max(until - LOOK_EVERY if seen is None else seen, until - _POOLED)
        if until - since < LOOK_EVERY:
            return []
        share = self.share(since, until)
        self._windows.requests_seen = until
        subject = f"requests until {until.replace(tzinfo=None):%Y-%m-%d %H:%M}"
        if share is not None and share.over:
            text = f"share of the chat requests that failed {share.in_words}; the service's log says why"
            return self._alerts.event("errors", subject, at=now, text=text)
        if share is not None and share.is_back:
            self._alerts.recovered(subject, at=now, over=["errors"])
        return []

    def share(self, since: datetime, until: datetime) -> HeldShare | None:
        """The share that failed, held against its limit; ``None`` where nothing was asked since the last look."""
        failed = n = 0
        for each in self._counts.between(until - _POOLED, until):
            if each.minute < since and (not n or n >= ENOUGH):
                break
            failed, n = failed + each.failed, n + each.answered + each.failed
        if not n:
            return None
        return held_counts(failed, n, most=self._limits.errors, level=level_of(until - since))
