"""Where everything stands, for one screen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.options import Project, console, on_project
from ontopic.data.terminal import visible
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.standing import uncorrected_in_words
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.rollouts import rollout_of
from ontopic.registry.sign_off import SignOff
from ontopic.registry.unnamed import named
from ontopic.state.service_file import read_service
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import Rate
from ontopic.traffic.store import TrafficStore, store_name
from ontopic.watch.actions import ActionStore, free_at

_WINDOWS, _ACTIONS = 8, 5
_COLOURS = {"ok": "green", "suspected": "yellow", "detected": "red", "unknown": "dim"}


@on_project
def status(project: Project) -> None:
    """Show champion, service, traffic, windows, alerts and what the automatic loop did, on one screen."""
    console.print(overview(project))


def overview(project: Project) -> Group:
    """Champion, service, traffic, windows and what the automatic loop did, as something that rich can print."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    name = policy.registered_model
    registry = open_registry(workspace, name)
    history, champion = registry.promotions(), registry.champion()
    with named(WindowStore(workspace.windows, name), workspace) as store:
        windows, waiting = store.closed(_WINDOWS), store.waiting()
    with named(ActionStore(workspace.windows, name), workspace) as done:
        actions = done.newest(1000)
    with Alerts(workspace.alerts, settings.alerts, policy=policy.name) as alerts:
        open_ = [alert for alert in alerts.history(1000) if alert.closed_at is None]
    facts = Table(box=None, padding=(0, 1), show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("policy", f"{policy.name}, threshold {policy.alert_threshold:g}")
    if settings.serving.upstream:
        facts.add_row("model", f"{settings.serving.model}, another server's; nothing is trained")
    else:
        facts.add_row("champion", _champion(champion, history))
    if champion:
        facts.add_row("its score", _score(registry))
    if off := registry.off_record():
        facts.add_row("record", Text(visible(f"{off}; see python run.py record verify"), style="red"))
    facts.add_row("service", _service(workspace, name))
    facts.add_row("traffic", _traffic(workspace, name))
    facts.add_row("windows", f"{waiting:,} records wait for theirs to close")
    facts.add_row("alerts", "; ".join(f"{alert.id} ({alert.severity}): {alert.text}" for alert in open_) or "none open")
    sign_off = SignOff(settings.promotion, policy, workspace=workspace)
    for wait, why in sign_off.waiting():
        facts.add_row("approval", wait.in_words if why is None else f"void of version {wait.version}: {why}")
    if (rollout := rollout_of(sign_off.entries())) is not None:
        facts.add_row("rollout", rollout.in_words)
    facts.add_row(
        "watch", _watch(project, free_at(settings.watch, actions, history=history, record=sign_off.entries()))
    )
    parts: list[Table | Text] = [facts]
    if windows:
        parts.append(_table(windows))
        newest = windows[-1].result
        if newest and newest.unknown_because:
            parts.append(Text(f"The newest window is unknown: {newest.unknown_because}"))
        if newest and not newest.is_corrected:
            parts.append(Text(f"Its score is {uncorrected_in_words(newest.labels)}"))
        if newest and newest.thumbs:
            parts.append(Text(f"Thumbs: {newest.thumbs.in_words}"))
        parts += [Text(f"Beside, {side.name}: {visible(side.in_words)}") for side in newest.beside] if newest else []
        reports = [window.result.report for window in windows if window.result]
        parts.append(Text(f"The newest window's page: {reports[-1]}"))
    if actions:
        parts.append(Text("\nWhat the automatic loop did", style="bold"))
        for action in actions[-_ACTIONS:]:
            kind = action.kind.replace("_", " ")
            parts.append(Text(f"{action.at:%Y-%m-%d %H:%M}  {kind} (version {action.version}): {action.why}"))
    return Group(*parts)


def _champion(champion: str, history: Sequence[Promotion]) -> str:
    if not champion:
        return "none; run python run.py"
    if not history or history[-1].version != champion:
        return f"version {champion}"
    last = history[-1]
    verb = "rolled back to" if last.rollback else "promoted"
    verb += f" past its gate ({last.gate})" if last.override else ""
    return f"version {champion}, {verb} {last.at:%Y-%m-%d %H:%M} UTC by {last.by}: {last.why}"


def champion_in_words(registry: ModelRegistry) -> list[str]:
    """Who is the champion since when and why, and its guardrail score in the gate that let it pass."""
    champion = registry.champion()
    said = _champion(champion, registry.promotions())
    return [said, f"version {champion}: {_score(registry)}"] if champion else [said]


def _score(registry: ModelRegistry) -> str:
    """The champion's guardrail score in the gate that let it pass, as its evidence has it."""
    champion = registry.champion()
    tags = registry.tags_of(champion)
    try:
        score = Rate.model_validate_json(tags["ontopic.gate.guardrail_score"])
    except (KeyError, ValueError):
        return "no gate has measured it; the windows show what it does"
    against = tags.get("ontopic.gate.champion", "unknown")
    return f"guardrail score {score} in its gate against version {against}"


def _service(workspace: Workspace, name: str) -> str:
    service = read_service(workspace.service)
    if service is not None and service.process() is not None:
        served = f" serves {service.model}" + (f", not {name}" if service.model != name else "")
        return f"process {service.pid} on port {service.port}" + (served if service.model else "")
    return "does not run; start it with python run.py serve"


def _traffic(workspace: Workspace, name: str) -> str:
    where = workspace.traffic
    if isinstance(where, Path) and not where.is_file():
        return "none yet"
    with named(TrafficStore(where, name), workspace) as store:
        newest = store.newest(1)
        return f"{store.count():,} records in {store_name(where)}" + (
            f", the newest of {newest[0].asked_at:%Y-%m-%d %H:%M} UTC" if newest else ""
        )


def _watch(project: Project, free: datetime | None) -> str:
    try:
        with FileLock(project.workspace.lock, timeout=0):
            runs = "does not run; start it with python run.py watch"
    except Timeout:
        runs = "runs, or a loop does"
    except OSError:  # a state folder that may only be read
        runs = "is not known, as the state folder may not be written"
    now = datetime.now(UTC)
    return runs + (f"; nothing is retrained until {free:%Y-%m-%d %H:%M} UTC" if free and free > now else "")


def _table(windows: list[Window]) -> Table:
    table = Table(
        box=box.SIMPLE,
        padding=0,
        title="Windows (guardrail score with its 95 % interval; *: uncorrected)",
    )
    for name in ("start (UTC)", "version", "records", "score", "over-ref.", "leak", "status"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("start (UTC)", "status") else "right")
    for window in windows:
        if window.result is None:
            continue
        score, scores = window.result.score, window.result.scores
        interval = score.with_interval + ("" if window.result.is_corrected else "*") if score.n else "–"
        shares = [f"{rate.value:.3f}" if rate.n else "–" for rate in (scores.over_refusal, scores.leak)]
        state = Text(window.result.status, style=_COLOURS[window.result.status])
        version = visible(window.model_version or "unknown")[:8]
        table.add_row(f"{window.start:%m-%d %H:%M:%S}", version, f"{window.result.n:,}", interval, *shares, state)
    return table
