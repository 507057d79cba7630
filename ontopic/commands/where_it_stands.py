"""Where everything stands, as a value: what ``status`` draws and ``status --json`` writes."""

from __future__ import annotations

from datetime import UTC, datetime

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.commands.options import Project
from ontopic.monitoring.alerts import Alert, Alerts
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.rollouts import Rollout, rollout_of
from ontopic.registry.sign_off import SignOff
from ontopic.registry.unnamed import named
from ontopic.state.database import database_name
from ontopic.state.lead import is_led
from ontopic.state.service_file import read_service
from ontopic.state.workspace import Workspace, is_there
from ontopic.statistics.rates import Rate
from ontopic.traffic.spool_index import SpoolStands, known_spools
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore, free_at

_WINDOWS = 8
_ALERTS = _ACTIONS = 1000


class GateScore(BaseModel):
    """A version's guardrail score in the gate that let it pass, and which version it was held against."""

    model_config = ConfigDict(frozen=True)
    score: Rate
    against: str


class ServiceStands(BaseModel):
    """A service that runs."""

    model_config = ConfigDict(frozen=True)
    pid: int
    port: int
    model: str


class TrafficStands(BaseModel):
    """How many records of the policy are stored, where, and when the newest was asked (UTC)."""

    model_config = ConfigDict(frozen=True)
    where: str
    n: int = 0
    newest: datetime | None = None


class Awaited(BaseModel):
    """A challenger that waits for approval; ``void`` says why it waits in vain."""

    model_config = ConfigDict(frozen=True)
    version: str
    approved_by: tuple[str, ...]
    needed: int
    until: datetime
    in_words: str
    void: str | None


class WhereItStands(BaseModel):
    """Champion, service, traffic, windows, alerts and what the automatic loop did.

    Attributes:
        upstream: another server's model that is served in place of a champion.
        champion: its version; empty where there is none.
        promotion: the newest move of the alias.
        gate_score: of the champion; ``None`` where no gate has measured it.
        off_record: what the registry says and the promotion record doesn't; empty where they agree.
        spools: in which records wait, of the services that machines share a database with.
        waiting_records: those that wait for their window to close.
        watch_runs: whether a loop or a watch does; ``None`` where that can't be known.
        retrains_after: when something may be retrained again; ``None`` where it may now.
        windows: the newest, the oldest of them first; so are the actions.
    """

    model_config = ConfigDict(frozen=True)
    policy: str
    registered_model: str
    alert_threshold: float
    upstream: str | None
    champion: str
    promotion: Promotion | None
    gate_score: GateScore | None
    off_record: str
    service: ServiceStands | None
    traffic: TrafficStands
    spools: list[SpoolStands]
    waiting_records: int
    open_alerts: list[Alert]
    approvals: list[Awaited]
    rollout: dict[str, JsonValue] | None
    rollout_in_words: str
    watch_runs: bool | None
    retrains_after: datetime | None
    windows: list[Window]
    actions: list[Action]


def where_it_stands(project: Project) -> WhereItStands:
    """Read it from the state folder.

    Raises:
        UserError: a database there can't be read.
    """
    settings, policy, workspace = project.settings, project.policy, project.workspace
    name = policy.registered_model
    registry = open_registry(workspace, name)
    history = registry.promotions()
    with named(WindowStore(workspace.windows, name), workspace) as store:
        windows, waiting = store.closed(_WINDOWS), store.waiting()
    with named(ActionStore(workspace.windows, name), workspace) as done:
        actions = done.newest(_ACTIONS)
    with Alerts(workspace.alerts, settings.alerts, policy=policy.name) as alerts:
        open_ = [alert for alert in alerts.history(_ALERTS) if alert.closed_at is None]
    sign_off = SignOff(settings.promotion, policy, workspace=workspace)
    rollout = rollout_of(sign_off.entries())
    upstream = settings.serving.upstream
    return WhereItStands(
        policy=policy.name,
        registered_model=name,
        alert_threshold=policy.alert_threshold,
        upstream=upstream.model if upstream is not None else None,
        champion=registry.champion() or "",
        promotion=history[-1] if history else None,
        gate_score=gate_score(registry),
        off_record=registry.off_record() or "",
        service=_service(workspace),
        traffic=_traffic(workspace, name),
        spools=[] if workspace.state_url is None else known_spools(workspace.state_url),
        waiting_records=waiting,
        open_alerts=open_,
        approvals=_awaited(sign_off),
        rollout=None if rollout is None else _told(rollout),
        rollout_in_words="" if rollout is None else rollout.in_words,
        watch_runs=_watch_runs(workspace, name),
        retrains_after=_later(free_at(settings.watch, actions, history=history, record=sign_off.entries())),
        windows=windows,
        actions=actions,
    )


def gate_score(registry: ModelRegistry) -> GateScore | None:
    """The champion's guardrail score in the gate that let it pass, as its evidence has it."""
    champion = registry.champion()
    tags = registry.tags_of(champion) if champion else {}
    try:
        score = Rate.model_validate_json(tags["ontopic.gate.guardrail_score"])
    except (KeyError, ValueError):
        return None
    return GateScore(score=score, against=tags.get("ontopic.gate.champion", "unknown"))


def _service(workspace: Workspace) -> ServiceStands | None:
    service = read_service(workspace.service)
    if service is None or service.process() is None:
        return None
    return ServiceStands(pid=service.pid, port=service.port, model=service.model)


def _traffic(workspace: Workspace, name: str) -> TrafficStands:
    where = workspace.traffic
    if not is_there(where):
        return TrafficStands(where=str(where))
    with named(TrafficStore(where, name), workspace) as store:
        newest = store.newest(1)
        return TrafficStands(where=database_name(where), n=store.count(), newest=newest[0].asked_at if newest else None)


def _awaited(sign_off: SignOff) -> list[Awaited]:
    return [
        Awaited(
            version=wait.version,
            approved_by=wait.approved_by,
            needed=wait.needed,
            until=wait.until,
            in_words=wait.in_words,
            void=why,
        )
        for wait, why in sign_off.waiting()
    ]


def _told(rollout: Rollout) -> dict[str, JsonValue]:
    """Without the key by which conversations are drawn, which no client may know."""
    return {**rollout.model_dump(mode="json", exclude={"key"}), "share": rollout.share}


def _watch_runs(workspace: Workspace, name: str) -> bool | None:
    if workspace.state_url is not None:
        return is_led(workspace.state_url, name)
    try:
        with FileLock(workspace.lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a state folder that may only be read
        return None


def _later(time: datetime | None) -> datetime | None:
    return time if time and time > datetime.now(UTC) else None
