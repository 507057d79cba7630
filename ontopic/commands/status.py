"""Where everything stands, for one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.options import Project, console, on_project
from ontopic.commands.reporting import AsJson, reporting
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.commands.where_it_stands import GateScore, WhereItStands
    from ontopic.monitoring.window import Window
    from ontopic.registry.promotions import ModelRegistry, Promotion

_ACTIONS = 5
_COLOURS = {"ok": "green", "suspected": "yellow", "detected": "red", "unknown": "dim"}


@on_project
def status(project: Project, *, as_json: AsJson = False) -> None:
    """Show champion, service, traffic, windows, alerts and what the automatic loop did, on one screen."""
    from ontopic.commands.where_it_stands import where_it_stands

    with reporting(as_json=as_json) as document:
        stands = where_it_stands(project)
        if as_json:
            document(stands)
        else:
            console.print(screen(stands))


def screen(stands: WhereItStands) -> Group:
    """Champion, service, traffic, windows and what the automatic loop did, as something that rich can print."""
    facts = Table(box=None, padding=(0, 1), show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, said in facts_of(stands):
        facts.add_row(name, said)
    parts: list[Table | Text] = [facts]
    if stands.windows:
        parts += [_table(stands.windows), *map(Text, _newest(stands.windows))]
    if stands.actions:
        parts.append(Text("\nWhat the automatic loop did", style="bold"))
        for action in stands.actions[-_ACTIONS:]:
            kind = action.kind.replace("_", " ")
            parts.append(Text(f"{action.at:%Y-%m-%d %H:%M}  {kind} (version {action.version}): {action.why}"))
    return Group(*parts)


def facts_of(stands: WhereItStands) -> Iterator[tuple[str, str | Text]]:
    yield "policy", f"{stands.policy}, threshold {stands.alert_threshold:g}"
    if stands.upstream:
        yield "model", f"{stands.upstream}, another server's; nothing is trained"
    else:
        yield "champion", _champion(stands.champion, stands.promotion)
    if stands.champion:
        yield "its score", _score(stands.gate_score)
    if stands.off_record:
        yield "record", Text(visible(f"{stands.off_record}; see python run.py record verify"), style="red")
    yield "service", _service(stands)
    yield "traffic", _traffic(stands)
    for spool in stands.spools:
        yield "spool", Text(spool.in_words, style="yellow")
    yield "windows", f"{stands.waiting_records:,} records wait for theirs to close"
    open_ = "; ".join(f"{alert.id} ({alert.severity}): {alert.text}" for alert in stands.open_alerts)
    yield "alerts", open_ or "none open"
    for wait in stands.approvals:
        yield "approval", wait.in_words if wait.void is None else f"void of version {wait.version}: {wait.void}"
    if stands.rollout_in_words:
        yield "rollout", stands.rollout_in_words
    yield "watch", _watch(stands)


def _newest(windows: list[Window]) -> Iterator[str]:
    """What is to be said of the newest window."""
    from ontopic.monitoring.standing import uncorrected_in_words

    newest = windows[-1].result
    if newest and newest.unknown_because:
        yield f"The newest window is unknown: {newest.unknown_because}"
    if newest and not newest.is_corrected:
        yield f"Its score is {uncorrected_in_words(newest.labels)}"
    if newest and newest.thumbs:
        yield f"Thumbs: {newest.thumbs.in_words}"
    yield from (f"Beside, {side.name}: {visible(side.in_words)}" for side in (newest.beside if newest else ()))
    reports = [window.result.report for window in windows if window.result]
    yield f"The newest window's page: {reports[-1]}"


def _champion(champion: str, last: Promotion | None) -> str:
    if not champion:
        return "none; run python run.py"
    if last is None or last.version != champion:
        return f"version {champion}"
    verb = "rolled back to" if last.rollback else "promoted"
    verb += f" past its gate ({last.gate})" if last.override else ""
    return f"version {champion}, {verb} {last.at:%Y-%m-%d %H:%M} UTC by {last.by}: {last.why}"


def champion_in_words(registry: ModelRegistry) -> list[str]:
    """Who is the champion since when and why, and its guardrail score in the gate that let it pass."""
    from ontopic.commands.where_it_stands import gate_score

    champion, history = registry.champion(), registry.promotions()
    said = _champion(champion, history[-1] if history else None)
    return [said, f"version {champion}: {_score(gate_score(registry))}"] if champion else [said]


def _score(found: GateScore | None) -> str:
    if found is None:
        return "no gate has measured it; the windows show what it does"
    return f"guardrail score {found.score} in its gate against version {found.against}"


def _service(stands: WhereItStands) -> str:
    service, name = stands.service, stands.registered_model
    if service is None:
        return "does not run; start it with python run.py serve"
    served = f" serves {service.model}" + (f", not {name}" if service.model != name else "")
    return f"process {service.pid} on port {service.port}" + (served if service.model else "")


def _traffic(stands: WhereItStands) -> str:
    traffic = stands.traffic
    if not traffic.n:
        return "none yet"
    newest = f", the newest of {traffic.newest:%Y-%m-%d %H:%M} UTC" if traffic.newest else ""
    return f"{traffic.n:,} records in {traffic.where}{newest}"


def _watch(stands: WhereItStands) -> str:
    runs = {
        True: "runs, or a loop does",
        False: "does not run; start it with python run.py watch",
        None: "is not known, as the state folder may not be written",
    }[stands.watch_runs]
    free = stands.retrains_after
    return runs + (f"; nothing is retrained until {free:%Y-%m-%d %H:%M} UTC" if free else "")


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
