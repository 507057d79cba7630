"""Alerts: what raises one, who hears of it, and what became of it.

Something that happened is an event; a rule of the configuration (``AlertSettings``) makes an alert of it:

    with Alerts(workspace.alerts, settings.alerts, policy.name) as alerts:
        alerts.event("detected", window.label, at=now, text="the corrected guardrail score is 0.71 [0.62, 0.80]")
        alerts.deliver(now)

An event is known by its kind and subject, so one that is reported twice counts once. While a rule's alert is open,
further events are added to it and nobody is notified again. An alert and its notifications are written in one
transaction. A notification is sent at least once, and bears the alert's number, so that a receiver can tell a second
copy.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.config.alert_settings import OF_THE_LOOP, AlertEvent, AlertSettings
from ontopic.config.network import check_way_out, is_loopback_url, reach_this_machine_directly
from ontopic.errors import UserError
from ontopic.state.database import insert_into
from ontopic.state.sqlite_file import naive_utc
from ontopic.state.tables import Tables

METADATA = sql.MetaData()
_EVENTS = sql.Table(
    "events",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("policy", sql.String, nullable=False),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("subject", sql.String, nullable=False),
    sql.Column("at", sql.DateTime, nullable=False),  # naive, in UTC
    sql.Column("text", sql.String, nullable=False),
    sql.UniqueConstraint("policy", "kind", "subject"),
)
_ALERTS = sql.Table(
    "alerts",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("policy", sql.String, nullable=False),
    sql.Column("rule", sql.String, nullable=False),
    sql.Column("severity", sql.String, nullable=False),
    sql.Column("text", sql.String, nullable=False),
    sql.Column("raised_at", sql.DateTime, nullable=False),
    sql.Column("last_at", sql.DateTime, nullable=False),
    sql.Column("events", sql.Integer, nullable=False),
    sql.Column("last_event", sql.Integer, nullable=False),
    sql.Column("closed_at", sql.DateTime),
    sql.Column("closed_by", sql.String),
)
_OVER = sql.Table(
    "over",  # of each kind, the newest event that was over when it was last seen to be
    METADATA,
    sql.Column("policy", sql.String, primary_key=True),
    sql.Column("kind", sql.String, primary_key=True),
    sql.Column("event", sql.Integer, nullable=False),
)
_OUTBOX = sql.Table(
    "outbox",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("alert_id", sql.Integer, nullable=False),
    sql.Column("target", sql.String, nullable=False),  # env:NAME, or a hash: a URL holds secrets
    sql.Column("title", sql.String, nullable=False),
    sql.Column("body", sql.String, nullable=False),
    sql.Column("severity", sql.String, nullable=False),
    sql.Column("since", sql.DateTime, nullable=False),
    sql.Column("due_at", sql.DateTime, nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("state", sql.String, nullable=False),  # waiting, sent or failed
)
_FIRST_RETRY, _LAST_RETRY = timedelta(seconds=30), timedelta(hours=1)
_GIVE_UP = timedelta(hours=24)
_LEASE = timedelta(minutes=2)  # of one that is being sent: another process leaves it alone so long
_LONGEST = 1000
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Alert(BaseModel):
    """One alert.

    Attributes:
        events: how many it collected while it was open, and ``last_at`` when the last of them came.
        closed_by: ``recovered``, ``told`` (of what is over once its notification is written), or who closed it.
        sent, waiting, failed: its notifications.
    """

    model_config = ConfigDict(frozen=True)
    id: int
    rule: str
    severity: str
    text: str
    raised_at: datetime
    last_at: datetime
    events: int
    closed_at: datetime | None
    closed_by: str
    sent: int = 0
    waiting: int = 0
    failed: int = 0


class Alerts(Tables):
    """Alerts; several processes may use the same ones at once.

    Args:
        at: as ``Tables`` takes it.
        rules: of the configuration.
        policy: its name; another policy's alerts in the same place are left alone.

    Raises:
        UserError: as ``Tables``; Apprise does not know a rule's URL, or its variable is not set; the
            environment's proxy cannot be used.
    """

    def __init__(self, at: Path | str, rules: Sequence[AlertSettings], *, policy: str) -> None:
        self._rules, self._policy = rules, policy
        self._targets = {_target(each): _url(rule, each) for rule in rules for each in rule.notify}
        super().__init__(at, METADATA, what="the alerts", immediate=True)

    def event(self, kind: AlertEvent, subject: str, *, at: datetime, text: str) -> list[Alert]:
        """Note what happened, once, and raise the alerts whose rules are met now.

        Args:
            subject: what it happened to, such as a window's label.
        """
        row: dict[str, Any] = {"kind": kind, "subject": _plain(subject), "at": naive_utc(at), "text": _plain(text)}
        raised = []
        with self._writing(self._policy) as connection:
            new = insert_into(connection, _EVENTS).values(row | {"policy": self._policy}).on_conflict_do_nothing()
            if (event_id := connection.execute(new.returning(_EVENTS.c.id)).scalar()) is None:
                return []
            row["id"] = event_id
            for rule in self._rules:
                if kind in rule.events and (alert_id := self._raise(connection, rule, row=row)) is not None:
                    raised.append(alert_id)
        return [alert for alert in self.history(len(raised) + 20) if alert.id in raised] if raised else []

    def recovered(self, subject: str, *, at: datetime, over: Collection[AlertEvent]) -> None:
        """Close the open alerts whose rules reset by themselves, once all that they collected is over.

        Args:
            subject: which shows that, such as a window's label.
            over: the events of which it shows it; of others it says nothing.
        """
        if not over:
            return
        with self._writing(self._policy) as connection:
            newest = sql.select(sql.func.coalesce(sql.func.max(_EVENTS.c.id), 0)).scalar_subquery()
            rows = [{"policy": self._policy, "kind": kind, "event": newest} for kind in sorted(over)]
            for row in rows:
                known = insert_into(connection, _OVER).values(row)
                connection.execute(known.on_conflict_do_update(index_elements=["policy", "kind"], set_=row))
            for rule in self._rules:
                open_ = sql.select(_ALERTS).where(self._of(rule), _ALERTS.c.closed_at.is_(None))
                for alert in connection.execute(open_).all() if rule.reset == "auto" else ():
                    if not self._lasting(connection, rule, alert=alert):
                        self._close(connection, alert.id, at=at, by="recovered")
                        text = f"over: {_plain(subject)} shows it"
                        self._write(connection, rule, alert_id=alert.id, text=text, at=naive_utc(at))

    def _lasting(self, connection: sql.Connection, rule: AlertSettings, *, alert: Any) -> bool:
        """Whether an event that an alert collected is not over yet."""
        before = sql.select(sql.func.coalesce(sql.func.max(_ALERTS.c.last_event), 0))
        before = before.where(self._of(rule), _ALERTS.c.id < alert.id)
        collected = sql.and_(_EVENTS.c.policy == self._policy, _EVENTS.c.kind.in_(rule.events))
        collected &= sql.and_(_EVENTS.c.id > before.scalar_subquery(), _EVENTS.c.id <= alert.last_event)
        ended = sql.exists().where(
            _OVER.c.policy == self._policy, _OVER.c.kind == _EVENTS.c.kind, _OVER.c.event >= _EVENTS.c.id
        )
        return bool(connection.scalar(sql.select(sql.exists().where(collected, ~ended))))

    def close_alert(self, alert_id: int, *, at: datetime, by: str) -> None:
        """Close an open alert by hand.

        Raises:
            UserError: there is no such open alert of the policy.
        """
        with self._writing(self._policy) as connection:
            if not self._close(connection, alert_id, at=at, by=by):
                raise UserError(f"there is no open alert {alert_id} of {self._policy}; python run.py alerts shows them")

    def deliver(self, now: datetime) -> tuple[int, int]:
        """Send what is due of the policy's alerts.

        A notification that fails is sent again after half a minute, then after twice as long each time up to an hour,
        and given up after a day.

        Returns:
            How many were sent, and how many failed this time.
        """
        sent = failed = 0
        while (row := self._claim(now)) is not None:
            url = self._targets.get(row.target)
            ok = url is not None and _send(url, row.title, body=row.body, severity=row.severity)
            wait = min(_FIRST_RETRY * 2**row.attempts, _LAST_RETRY)
            # One that these rules do not know may be another configuration's, so it is left for that.
            over = now + wait > row.since.replace(tzinfo=UTC) + _GIVE_UP
            values = {"state": "sent" if ok else "failed" if over else "waiting", "attempts": row.attempts + 1}
            if not ok:
                values["due_at"] = naive_utc(now) + wait
            with self._engine.begin() as connection:
                connection.execute(sql.update(_OUTBOX).where(_OUTBOX.c.id == row.id).values(values))
            sent, failed = sent + ok, failed + (not ok)
        return sent, failed

    def history(self, n: int) -> list[Alert]:
        """The last ``n`` alerts, the newest first."""
        states = {
            state: sql.select(sql.func.count())
            .where(_OUTBOX.c.alert_id == _ALERTS.c.id, _OUTBOX.c.state == state)
            .scalar_subquery()
            .label(state)
            for state in ("sent", "waiting", "failed")
        }
        with self._engine.connect() as connection:
            found = sql.select(_ALERTS, *states.values()).where(_ALERTS.c.policy == self._policy)
            rows = connection.execute(found.order_by(_ALERTS.c.id.desc()).limit(n))
            return [_alert(row) for row in rows]

    def test(self) -> list[tuple[str, str, bool]]:
        """Send a test to each target: the rule's name, the kind of target or its variable, whether it was accepted."""
        found = []
        for rule in self._rules:
            for each in rule.notify:
                url = self._targets[_target(each)]
                ok = _send(
                    url, f"OnTopic {self._policy}: test", body=f"A test of the rule {rule.name}.", severity="info"
                )
                found.append((rule.name, each if each.startswith("env:") else f"{url.partition(':')[0]}://…", ok))
        return found

    def _raise(self, connection: sql.Connection, rule: AlertSettings, *, row: dict[str, Any]) -> int | None:
        """Raise the rule's alert where its criteria are met, or add the event to the one that is open."""
        newest = sql.select(_ALERTS).where(self._of(rule)).order_by(_ALERTS.c.id.desc()).limit(1)
        last = connection.execute(newest).first()
        if last is not None and last.closed_at is None:
            more = {"events": last.events + 1, "last_at": row["at"], "last_event": row["id"]}
            connection.execute(sql.update(_ALERTS).where(_ALERTS.c.id == last.id).values(more))
            return None
        counted = sql.select(sql.func.count()).select_from(_EVENTS)
        counted = counted.where(_EVENTS.c.policy == self._policy, _EVENTS.c.kind.in_(rule.events))
        if rule.period is not None:
            counted = counted.where(_EVENTS.c.at > row["at"] - rule.period)
        if last is not None:  # what an earlier alert was raised for counts for it alone
            counted = counted.where(_EVENTS.c.id > last.last_event)
        if int(connection.scalar(counted) or 0) < rule.count:
            return None
        values = {"rule": rule.name, "severity": rule.severity, "text": f"{row['subject']}: {row['text']}"}
        times = {"raised_at": row["at"], "last_at": row["at"], "events": rule.count}
        times |= {"policy": self._policy, "last_event": row["id"]}
        inserted = sql.insert(_ALERTS).values(values | times).returning(_ALERTS.c.id)
        alert_id = int(connection.execute(inserted).scalar_one())
        self._write(connection, rule, alert_id=alert_id, text=values["text"], at=row["at"])
        if rule.reset == "auto" and set(rule.events) <= set(OF_THE_LOOP):
            self._close(connection, alert_id, at=row["at"], by="told")
        return alert_id

    def _close(self, connection: sql.Connection, alert_id: int, *, at: datetime, by: str) -> bool:
        own = sql.and_(_ALERTS.c.id == alert_id, _ALERTS.c.policy == self._policy)
        open_ = sql.and_(own, _ALERTS.c.closed_at.is_(None))
        values = {"closed_at": naive_utc(at), "closed_by": _plain(by)}
        return bool(connection.execute(sql.update(_ALERTS).where(open_).values(values)).rowcount)

    def _write(
        self, connection: sql.Connection, rule: AlertSettings, *, alert_id: int, text: str, at: datetime
    ) -> None:
        """Put the notifications of an alert into the outbox."""
        title = f"OnTopic {self._policy}: {rule.severity}, {rule.name}"
        row = {"alert_id": alert_id, "title": _plain(title), "body": f"{text} (alert {alert_id})", "attempts": 0}
        row |= {"severity": rule.severity, "since": at, "due_at": at, "state": "waiting"}
        targets = dict.fromkeys(_target(each) for each in rule.notify)
        if targets:
            connection.execute(sql.insert(_OUTBOX), [row | {"target": target} for target in targets])

    def _of(self, rule: AlertSettings) -> sql.ColumnElement[bool]:
        return sql.and_(_ALERTS.c.policy == self._policy, _ALERTS.c.rule == rule.name)

    def _claim(self, now: datetime) -> Any:
        """The next notification that is due, which no other process takes for a while."""
        own = sql.select(_ALERTS.c.id).where(_ALERTS.c.policy == self._policy)
        waiting = sql.and_(_OUTBOX.c.state == "waiting", _OUTBOX.c.alert_id.in_(own))
        due = sql.select(_OUTBOX).where(waiting, _OUTBOX.c.due_at <= naive_utc(now))
        with self._engine.begin() as connection:
            first = due.order_by(_OUTBOX.c.due_at, _OUTBOX.c.id).limit(1)
            row = connection.execute(first.with_for_update(skip_locked=True)).first()
            if row is not None:
                lease = sql.update(_OUTBOX).where(_OUTBOX.c.id == row.id)
                connection.execute(lease.values(due_at=naive_utc(now) + _LEASE))
        return row


def _target(given: str) -> str:
    return given if given.startswith("env:") else hashlib.sha256(given.encode()).hexdigest()[:16]


def _url(rule: AlertSettings, given: str) -> str:
    """The Apprise URL that a rule's ``notify`` names."""
    from apprise import Apprise

    url, shown = given, "a URL"
    if given.startswith("env:"):
        shown = given
        url = os.environ.get(given.removeprefix("env:"), "")
        if not url:
            raise UserError(
                f"the alert rule {rule.name!r} notifies {given}, and that environment variable is not set; set it, or "
                "take it out of the rule"
            )
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it logs URLs, with their secrets
    if Apprise.instantiate(url) is None:
        raise UserError(
            f"the alert rule {rule.name!r} notifies {shown} that Apprise does not know; the forms are listed at "
            "https://appriseit.com/services"
        )
    if not url.startswith("mailto") and not is_loopback_url(url):
        check_way_out(by_requests=True)
    return url


def _send(url: str, title: str, *, body: str, severity: str) -> bool:
    from apprise import Apprise, NotifyFormat, NotifyType

    reach_this_machine_directly()  # Apprise's client reads the environment's proxies by itself
    kinds = {"info": NotifyType.INFO, "warning": NotifyType.WARNING, "critical": NotifyType.FAILURE}
    service = Apprise()
    service.add(url)
    return bool(service.notify(body, title, kinds[severity], body_format=NotifyFormat.TEXT))


def _plain(text: str) -> str:
    """A text from outside on one line, without control characters, and not too long."""
    return _HIDDEN.sub(" ", text)[:_LONGEST].strip()


def _alert(row: Any) -> Alert:
    values = row._asdict()
    del values["policy"], values["last_event"]
    for name in ("raised_at", "last_at", "closed_at"):
        values[name] = values[name] and values[name].replace(tzinfo=UTC)
    return Alert(**values | {"closed_by": values["closed_by"] or ""})
