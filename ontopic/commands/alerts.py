"""``alerts``: what was raised, and what became of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.listing import Commands
from ontopic.commands.options import Project, beginning, console, on_project, user_name
from ontopic.commands.reporting import AsJson, reporting
from ontopic.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ontopic.monitoring.alerts import Alert, Alerts

app = typer.Typer(cls=Commands, rich_markup_mode=None)
_SHOWN, _IN_WORDS = 20, 5


@app.callback(invoke_without_command=True)
@on_project
def alerts(context: typer.Context, project: Project, *, as_json: AsJson = False) -> None:
    """Show the last alerts, open and closed, and what became of their notifications; or close, test or send."""
    with _open_alerts(project) as store:
        found = store.history(_SHOWN)
    with reporting(as_json=as_json) as document:
        document(found)
    if as_json:  # none is an answer to a program
        return
    if not found:
        raise UserError("there was no alert yet; python run.py watch raises them (docs/how-to/alerts.md)")
    console.print(history(found))
    console.print("The windows' pages are in the folder reports of the state folder.")


def history(found: Sequence[Alert]) -> Group:
    """The alerts as a table, and the first of them in words."""
    table = Table(box=box.SIMPLE, padding=0, title="Alerts, the newest first")
    for name in ("id", "raised (UTC)", "severity", "rule", "events", "state", "sent/waiting/failed"):
        numeric = name in ("id", "events", "sent/waiting/failed")
        table.add_column(name, no_wrap=name != "rule", overflow="fold", justify="right" if numeric else "left")
    for alert in found:
        notified = f"{alert.sent}/{alert.waiting}/{alert.failed}"
        row = (f"{alert.raised_at:%Y-%m-%d %H:%M}", alert.severity, alert.rule, f"{alert.events:,}")
        table.add_row(str(alert.id), *row, "closed" if alert.closed_at else "open", notified)
    lines = []
    for alert in found[:_IN_WORDS]:
        ended = f" Closed {alert.closed_at:%Y-%m-%d %H:%M}: {alert.closed_by}." if alert.closed_at else ""
        lines.append(Text(f"{alert.id}: {alert.text}.{ended}"))
    return Group(table, *lines)


@app.command("close")
@on_project
def close(
    alert: Annotated[int, typer.Argument(help="The alert's number.")],
    project: Project,
) -> None:
    """Close an open alert by hand, so that its rule can raise another."""
    with _open_alerts(project) as store:
        store.close_alert(alert, by=user_name(), at=datetime.now(UTC))
    console.print(f"alert {alert} is closed")


@app.command("test")
@beginning
def test(project: Project) -> None:
    """Send a test to whoever the rules notify, and say which was accepted."""
    with _open_alerts(project) as store:
        found = store.test()
    if not found:
        raise UserError(
            "no rule notifies anybody; give `notify` under `alerts` of the configuration (docs/how-to/alerts.md)"
        )
    for rule, target, accepted in found:
        console.print(f"{'accepted' if accepted else 'FAILED'}: {target} of {rule}")
    if not all(accepted for _, _, accepted in found):
        raise UserError("not all were accepted; check their URLs, and that their servers can be reached from here")


@app.command("send")
@on_project
def send(project: Project) -> None:
    """Send what is due, as a running watch does."""
    with _open_alerts(project) as store:
        sent, failed = store.deliver(datetime.now(UTC))
    console.print(f"{sent} notifications were sent, {failed} failed")


def _open_alerts(project: Project) -> Alerts:
    from ontopic.monitoring.alerts import Alerts

    return Alerts(project.workspace.alerts, project.settings.alerts, policy=project.policy.name)
