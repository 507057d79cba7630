"""The index page and the page of the assistant's life, as HTML."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.commands.index_state import Awaits, IndexState, Report, page_of
from ontopic.commands.life import Event
from ontopic.commands.life_plot import Lanes, Span, evidence_chart, score_chart
from ontopic.commands.status import facts_of
from ontopic.commands.tool_pages import ToolPage
from ontopic.monitoring.alerts import Alert
from ontopic.monitoring.window import Window
from ontopic.reports.design import Allows, draw_page
from ontopic.reports.parts import Badge, Cell, Column, Headline, Link, Status, Table
from ontopic.watch.actions import Action

ALLOWS = Allows(forms=True, requests=True, scripts=("index.js",))
REPORTS = "reports"
_WINDOWS, _ACTIONS, _ALERTS, _REPORTS, _EVENTS = 12, 10, 10, 24, 500
_STATUSES: dict[str, Status] = {"ok": "passed", "suspected": "neutral", "detected": "failed", "unknown": "neutral"}
_KINDS = {
    "gate": "Gate: why a version was promoted or refused",
    "monitoring": "All traffic that the loop asked for",
    "window": "Window",
    "judge-card": "The judge's card",
    "guard-card": "The guard's card",
    "judges-compared": "Judges compared",
    "evidently": "Evidently's report beside a page",
    "other": "Other",
}


class Said(BaseModel):
    """What became of a decision that was given on the page; a form that is to be given again keeps what was typed."""

    model_config = ConfigDict(frozen=True)
    status: Status
    text: str
    version: str = ""
    by: str = ""
    why: str = ""


class Form(BaseModel):
    """A challenger that waits, as the page asks about it."""

    model_config = ConfigDict(frozen=True)
    version: str
    waiting: str
    sentence: str
    void: str
    gate: Link | None
    by: str
    why: str


def stamp_of(state: IndexState, tools: Sequence[ToolPage], *, said: Said | None) -> str:
    """What changes where the page would, and only then."""
    parts = [
        state.model_dump_json(),
        *(tool.model_dump_json() for tool in tools),
        said.model_dump_json() if said else "",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def draw_index(state: IndexState, tools: Sequence[ToolPage], *, said: Said | None, user: str, now: datetime) -> str:
    """The index page.

    Args:
        said: what became of the last decision.
        user: who is asked first whether it is them that decide: the user of the machine.
    """
    stands = state.stands
    windows, reports = state.windows[-_WINDOWS:][::-1], state.reports
    typed = said if said and said.version else None
    return draw_page(
        f"OnTopic: {stands.policy}",
        "index.html.jinja",
        allows=ALLOWS,
        head=headline(state),
        said=said,
        forms=[_form(each, state, typed=typed, user=user) for each in state.awaits],
        facts=_facts(state),
        plots=plots(state),
        windows=_windows(windows, reports),
        alerts=_alerts([alert for alert in state.alerts if alert.closed_at is None][:_ALERTS]),
        actions=_actions(stands.actions[-_ACTIONS:][::-1]),
        reports=_reports(reports),
        tools=tools,
        stamp=stamp_of(state, tools, said=said),
        changed=typed is not None,
        now=f"{now:%Y-%m-%d %H:%M:%S} UTC",
    )


def draw_life(state: IndexState) -> str:
    """The page of the assistant's life: the picture, and a table that tells the same."""
    return draw_page(
        f"OnTopic: {state.stands.policy}, its life",
        "life.html.jinja",
        plots=plots(state),
        events=_events(state.life[::-1], state.reports),
    )


def draw_message(title: str, text: str) -> str:
    """A page that says what is wrong."""
    head = Headline(status="failed", label="error", sentence=title, reason=text)
    return draw_page(f"OnTopic: {title}", "message.html.jinja", head=head)


def headline(state: IndexState) -> Headline:
    """Where it stands, in one sentence."""
    stands = state.stands
    waiting = [each.wait.version for each in state.awaits if each.void is None]
    newest = next((w for w in reversed(state.windows) if w.result and w.model_version == stands.champion), None)
    if stands.upstream:
        champion = f"{stands.upstream} answers, which is another server's"
        newest = state.windows[-1] if state.windows else None
    elif stands.champion:
        champion = f"Version {stands.champion} is the champion"
    else:
        return Headline(status="neutral", label="begins", sentence="There is no champion yet", reason="Run run.py.")
    status, label, reason = _standing(newest)
    if waiting:
        champion += f", and version {' and '.join(waiting)} waits for approval"
    if stands.open_alerts:
        reason += f" {len(stands.open_alerts)} alerts are open."
    return Headline(status=status, label=label, sentence=champion, reason=reason.strip())


def _standing(window: Window | None) -> tuple[Status, str, str]:
    if window is None or window.result is None:
        return "neutral", "unknown", "None of its windows is closed yet."
    result = window.result
    because = f" It is unknown where it stands: {result.unknown_because}." if result.unknown_because else ""
    said = (
        f"Its newest window, of {window.end:%Y-%m-%d %H:%M} UTC: {result.named_score}, threshold {result.threshold:g}."
    )
    return _STATUSES[result.status], result.status, said + because


def plots(state: IndexState) -> list[object]:
    """Score, evidence and events, one under the other on the same axis."""
    span = Span(state.life)
    drawn: list[object] = []
    if state.windows:
        drawn.append(score_chart(state.windows, state.life, span=span, threshold=state.stands.alert_threshold))
        evidence = evidence_chart(state.windows, state.life, span=span)
        drawn += [evidence] if evidence else []
    return [*drawn, Lanes(title="What happened", note="times are UTC", life=state.life)]


def _form(awaits: Awaits, state: IndexState, *, typed: Said | None, user: str) -> Form:
    wait = awaits.wait
    sentence = wait.in_words.partition(": python run.py")[0]
    again = typed if typed and typed.version == wait.version else None
    gate = state.gate_page(wait.version, wait.terms.champion)
    return Form(
        version=wait.version,
        waiting=wait.entry.sha256,
        sentence=sentence[:1].upper() + sentence[1:],
        void=awaits.void or "",
        gate=_link(gate, "Read the gate's page first") if gate else None,
        by=again.by if again else user,
        why=again.why if again else "",
    )


def _facts(state: IndexState) -> list[tuple[str, Cell]]:
    """What `status` says, but for what the page asks or heads; and the page on why the champion is one."""
    stands, last = state.stands, state.stands.promotion
    facts: list[tuple[str, Cell]] = []
    for name, text in facts_of(stands):
        if name not in ("policy", "approval"):
            # Where on this machine the file is says nothing to who reads the page.
            facts.append((name.capitalize(), str(text).replace(stands.traffic.where, Path(stands.traffic.where).name)))
        gate = state.gate_page(stands.champion, last.before) if name == "champion" and last else None
        if gate and last:
            facts.append(("Why", _link(gate, f"the gate of version {stands.champion} against {last.before}")))
    return facts


def _link(report: Report, text: str) -> Link:
    return Link(text=text, href=f"{REPORTS}/{report.name}")


def _windows(windows: Sequence[Window], reports: Sequence[Report]) -> Table:
    numbers = [Column(name=name, numeric=True) for name in ("Records", "Score", "Over-refusal", "Leak")]
    columns = _columns("From (UTC)", "Version", *numbers, "Status", "Page")
    rows: list[list[Cell]] = []
    for window in windows:
        if (result := window.result) is not None:
            page = page_of(result.report, reports)
            rows.append(
                [
                    f"{window.start:%Y-%m-%d %H:%M:%S}",
                    window.model_version or "unknown",
                    result.n,
                    result.score,
                    result.scores.over_refusal,
                    result.scores.leak,
                    Badge(status=_STATUSES[result.status], text=result.status),
                    _link(page, "open") if page else None,
                ]
            )
    note = "guardrail score with its 95 % interval"
    if any(window.result and not window.result.is_corrected for window in windows):
        note += "; uncorrected for the judge's own error where too few of the records carry a label"
    return Table(caption="Last windows", note=note, columns=columns, rows=rows, nothing="None is closed yet.")


def _alerts(alerts: Sequence[Alert]) -> Table:
    rows: list[list[Cell]] = [
        [
            str(alert.id),
            Badge(status="failed" if alert.severity == "critical" else "neutral", text=alert.severity),
            f"{alert.raised_at:%Y-%m-%d %H:%M}",
            alert.text,
            f"python run.py alerts close {alert.id}",
        ]
        for alert in alerts
    ]
    columns = _columns("Alert", "Severity", "Raised (UTC)", Column(name="What", wide=True), "To close it")
    return Table(caption="Open alerts", columns=columns, rows=rows, nothing="None is open.")


def _actions(actions: Sequence[Action]) -> Table:
    rows: list[list[Cell]] = [
        [f"{each.at:%Y-%m-%d %H:%M}", each.kind.replace("_", " "), each.version, each.why] for each in actions
    ]
    columns = _columns("When (UTC)", "What", "Version", Column(name="Why", wide=True))
    nothing = "Nothing yet; python run.py watch does it."
    return Table(caption="What the automatic loop did", columns=columns, rows=rows, nothing=nothing)


def _reports(reports: Sequence[Report]) -> Table:
    order = list(_KINDS)
    ordered = sorted(reports, key=lambda each: order.index(each.kind))  # stable: the newest of each kind first
    return Table.first(
        [[_KINDS[each.kind], _link(each, each.name), f"{each.written_at:%Y-%m-%d %H:%M}"] for each in ordered],
        _REPORTS,
        lies="they are in the folder reports of the state folder.",
        caption="Pages",
        columns=_columns("About", Column(name="Page", wide=True), "Written (UTC)"),
        nothing="There are none yet.",
        filtered=len(reports) > _WINDOWS,
    )


def _events(life: Sequence[Event], reports: Sequence[Report]) -> Table:
    tones: dict[str, Status] = {"good": "passed", "bad": "failed", "warn": "neutral", "plain": "neutral"}
    rows: list[list[Cell]] = []
    for event in life:
        page = page_of(event.page, reports) if event.page else None
        rows.append(
            [
                f"{event.at:%Y-%m-%d %H:%M:%S}",
                _in_words(event.until - event.at) if event.until else "until now" if event.lasts else None,
                Badge(status=tones[event.tone], text=event.what),
                event.version or None,
                event.why,
                event.by or None,
                _link(page, "open") if page else None,
            ]
        )
    return Table.first(
        rows,
        _EVENTS,
        lies="python run.py record has all entries, python run.py alerts all alerts.",
        caption="Events, the newest first",
        columns=_columns("When (UTC)", "Lasted", "What", "Version", Column(name="Why", wide=True), "By", "Page"),
        filtered=True,
    )


def _columns(*given: str | Column) -> list[Column]:
    return [Column(name=each) if isinstance(each, str) else each for each in given]


def _in_words(lasted: timedelta) -> str:
    """A time in its two largest units."""
    seconds = int(lasted.total_seconds())
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds % 60, "s")]
    first = next((i for i, (n, _) in enumerate(parts) if n), len(parts) - 1)
    return " ".join(f"{n} {unit}" for n, unit in parts[first : first + 2] if n) or "under 1 s"
