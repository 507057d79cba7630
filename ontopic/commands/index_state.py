"""What the index page shows: a pure function of what is stored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.commands.life import Event, life_of
from ontopic.commands.options import Project
from ontopic.commands.where_it_stands import WhereItStands, where_it_stands
from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.approval import Waiting
from ontopic.registry.promotions import open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.registry.unnamed import named
from ontopic.watch.actions import ActionStore

_MOST_WINDOWS, _MOST_ALERTS, _MOST_ACTIONS = 400, 200, 1000
_KINDS = ("gate", "monitoring", "window", "judge-card", "guard-card", "judges-compared")
_GATE = re.compile(r"-version-(\d+)-against-(\d+)")


class Report(BaseModel):
    """A page in the state's folder of reports.

    Attributes:
        kind: what it is about, by its name: one of a few, or ``other``.
        written_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    kind: str
    written_at: datetime


class Awaits(BaseModel):
    """A challenger that waits for approval; ``void`` says why an approval would be void now."""

    model_config = ConfigDict(frozen=True)
    wait: Waiting
    void: str | None


class IndexState(BaseModel):
    """All that the index page shows of a state folder.

    Attributes:
        windows: closed ones, the oldest first.
        alerts: the newest first, open and closed.
        life: what happened, the oldest first.
        reports: the newest first.
    """

    model_config = ConfigDict(frozen=True)
    stands: WhereItStands
    awaits: list[Awaits]
    windows: list[Window]
    alerts: list[Alert]
    life: list[Event]
    reports: list[Report]

    def gate_page(self, version: str, against: str) -> Report | None:
        """The page on the last gate of a version against another."""
        found = (each for each in self.reports if each.kind == "gate")
        return next((each for each in found if _gate_of(each.name) == (version, against)), None)


def index_state(project: Project) -> IndexState:
    """Read it from the state folder.

    Raises:
        UserError: what is stored there can't be read.
    """
    settings, policy, workspace = project.settings, project.policy, project.workspace
    name = policy.registered_model
    with named(WindowStore(workspace.windows, name), workspace) as store:
        windows = store.closed(_MOST_WINDOWS)
    with named(ActionStore(workspace.windows, name), workspace) as done:
        actions = done.newest(_MOST_ACTIONS)
    with Alerts(workspace.alerts, settings.alerts, policy=policy.name) as opened:
        alerts = opened.history(_MOST_ALERTS)
    sign_off = SignOff(settings.promotion, policy, workspace=workspace)
    return IndexState(
        stands=where_it_stands(project),
        awaits=[Awaits(wait=wait, void=why) for wait, why in sign_off.waiting()],
        windows=windows,
        alerts=alerts,
        life=life_of(
            windows=windows,
            alerts=alerts,
            actions=actions,
            entries=sign_off.entries(),
            promotions=open_registry(workspace, name).promotions(),
        ),
        reports=reports_in(workspace.reports, name),
    )


def reports_in(folder: Path, name: str) -> list[Report]:
    """The pages in a folder that are about a registered model, the newest first."""
    if not folder.is_dir():
        return []
    found = []
    for path in folder.glob("*.html"):
        if f"-{name}-" in f"{path.stem}-" and path.is_file() and not path.is_symlink():
            at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            found.append(Report(name=path.name, kind=_kind_of(path.name), written_at=at))
    return sorted(found, key=lambda each: (each.written_at, each.name), reverse=True)


def page_of(report: str, reports: Sequence[Report]) -> Report | None:
    """The page at a path that a store names, where it is still there."""
    name = Path(report).name
    return next((each for each in reports if each.name == name), None)


def _kind_of(name: str) -> str:
    if name.endswith("-evidently.html"):  # beside a page of ours
        return "evidently"
    return next((each for each in _KINDS if name.startswith(f"{each}-")), "other")


def _gate_of(name: str) -> tuple[str, str] | None:
    found = _GATE.search(name)
    return (found[1], found[2]) if found else None
