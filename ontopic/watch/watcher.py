"""The automatic loop: windows are closed as time passes, and what they show is acted on.

A window that is ``detected`` has the champion retrained, within a cool-down and a budget a day. After a promotion comes
a canary stretch: the predecessor answers the new champion's questions too, and where the gate's own paired comparison
shows the new one to be worse, it is rolled back. Everything that is done is written down before and after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.config.settings import AlertEvent, Settings, WatchSettings
from ontopic.data.labelled import load_questions
from ontopic.data.sample import normalized
from ontopic.errors import UserError
from ontopic.judges.cards.calibration import calibrate, open_judge
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.judge import Judge
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.topics import Topics
from ontopic.monitoring.window_page import Dashboard, topic_drift, window_report
from ontopic.monitoring.windows import Cut, Window, WindowStore
from ontopic.progress import progress
from ontopic.records import Judged, Record, Verdict
from ontopic.registry import versions as registry
from ontopic.registry.tracking import open_tracking
from ontopic.reports.verdict_frame import verdict_frame
from ontopic.state.sqlite_file import SQLiteFile, naive_utc
from ontopic.state.workspace import Workspace
from ontopic.statistics.pairs import Comparison, compare
from ontopic.traffic.store import TrafficStore

CANARY = "the canary"
_SHOWN = 50  # windows on the dashboard, and those that a canary stretch can hold
_HELD_OUT = 3  # one in so many questions of the traffic is kept for the gate and never trained on
_MOSTLY_UNJUDGED = 0.5

Kind = Literal["retraining", "refused", "promoted", "rolled_back", "failed", "would_retrain", "would_roll_back"]
_ENDS = ("refused", "promoted", "failed", "rolled_back")

_METADATA = sql.MetaData()
_ACTIONS = sql.Table(
    "actions",
    _METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("at", sql.DateTime, nullable=False),  # naive, in UTC
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("version", sql.String, nullable=False),
    sql.Column("subject", sql.String, nullable=False),
    sql.Column("why", sql.String, nullable=False),
)
_REPLAYS = sql.Table(
    "replays",
    _METADATA,
    sql.Column("record_id", sql.String, primary_key=True),
    sql.Column("model_version", sql.String, primary_key=True),
    sql.Column("judge_id", sql.String, primary_key=True),
    sql.Column("verdict", sql.String, nullable=False),
)


class Action(BaseModel):
    """One thing that the automatic loop did, or in a dry run would have done.

    Attributes:
        version: of the model that it is about.
        subject: the window that gave rise to it.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    kind: Kind
    version: str
    subject: str
    why: str


@dataclass(frozen=True)
class Improvement:
    """What a retraining works on.

    Attributes:
        record_ids: to train on, in the order of ``judged``.
        held_out: questions of the same traffic that the gate asks besides its own, with the judge's opinion of their
            scope: rows with ``question`` and ``in_scope``.
    """

    champion: str
    record_ids: list[str]
    judged: Judged
    held_out: list[dict[str, Any]]
    card: JudgeCard
    at: datetime


@dataclass(frozen=True)
class Improved:
    """What came of a retraining: the gate's decision, as ``gate.Decision.as_dict`` has it."""

    challenger: str
    promoted: bool
    decision: dict[str, Any]


@dataclass
class Turn:
    """What one turn did."""

    closed: list[Window] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)


class ActionStore(SQLiteFile):
    """What the automatic loop did, and its predecessors' answers in canary stretches, beside the windows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _METADATA, what="what the automatic loop did")

    def add(self, action: Action) -> Action:
        """Write an action down."""
        row = action.model_dump() | {"at": naive_utc(action.at)}
        with self._engine.begin() as connection:
            connection.execute(sql.insert(_ACTIONS).values(row))
        return action

    def newest(self, n: int) -> list[Action]:
        """The last ``n`` actions, the oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sql.select(_ACTIONS).order_by(_ACTIONS.c.id.desc()).limit(n)).all()
        return [
            Action(at=row.at.replace(tzinfo=UTC), kind=row.kind, version=row.version, subject=row.subject, why=row.why)
            for row in rows[::-1]
        ]

    def replayed(self, ids: Sequence[str], model_version: str, *, judge_id: str) -> dict[str, Verdict]:
        """Verdicts on what a version answered in a canary stretch, by the id of the record that it was asked for."""
        query = sql.select(_REPLAYS).where(_REPLAYS.c.model_version == model_version, _REPLAYS.c.judge_id == judge_id)
        with self._engine.connect() as connection:
            rows = {row.record_id: Verdict.model_validate_json(row.verdict) for row in connection.execute(query)}
        return {each: rows[each] for each in ids if each in rows}

    def add_replays(self, ids: Sequence[str], model_version: str, *, verdicts: Sequence[Verdict]) -> None:
        """Keep such verdicts, one an id."""
        rows = [
            {"record_id": i, "model_version": model_version, "judge_id": v.judge_id, "verdict": v.model_dump_json()}
            for i, v in zip(ids, verdicts, strict=True)
        ]
        with self._engine.begin() as connection:
            connection.execute(sql.insert(_REPLAYS).prefix_with("OR REPLACE"), rows)


class Watcher:
    """Closes windows, alerts, retrains, and rolls back. One at a time a state folder: the caller holds its lock.

    Args:
        improve: trains a challenger and lets the gate decide on its promotion.
        tell: called with a line for the reader.
        now: the clock.
        since: from when on traffic counts, where nothing was watched before.
        dry_run: windows are closed and alerts raised, but no model is trained, promoted or rolled back.
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        *,
        workspace: Workspace,
        improve: Callable[[Improvement], Improved],
        tell: Callable[[str], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> None:
        self._settings, self._policy, self._workspace = settings, policy, workspace
        self._improve, self._tell, self._now, self._since, self._dry_run = improve, tell, now, since, dry_run
        self._traffic = TrafficStore(workspace.traffic)
        self._windows = WindowStore(workspace.windows)
        self._actions = ActionStore(workspace.windows)
        self._alerts = Alerts(workspace.alerts, settings.alerts, policy=policy.name)
        self._cut = cut_of(settings)
        self._told: set[str] = set()
        self._compared: set[tuple[int, str]] = set()

    @cached_property
    def _judge(self) -> Judge:
        return open_judge(self._settings.judge_choice, self._policy, workspace=self._workspace)

    @cached_property
    def _card(self) -> JudgeCard:
        return calibrate(self._judge, self._policy, workspace=self._workspace)

    @cached_property
    def _topics(self) -> Topics:
        from ontopic.models.sentence_encoder import load_sentence_encoder

        questions = load_questions(self._policy.questions, split="calibration")
        return Topics([question.question for question in questions], load_sentence_encoder())

    @cached_property
    def _dashboard(self) -> Dashboard:
        return Dashboard(self._workspace.evidently, self._policy)

    def turn(self) -> Turn:
        """Take in what is new, close what is due, and act on it."""
        now, turn = self._now(), Turn()
        open_tracking(self._workspace, self._policy.registered_model)
        self._windows.take_in(self._traffic, self._cut, now=now, since=self._since)
        for window in self._windows.due(self._cut, now):
            turn.closed.append(self._close(window, now))
        if turn.closed:
            promotions = registry.promotions(self._policy.registered_model)
            self._dashboard.show(self._windows.closed(_SHOWN), promotions[-1].at if promotions else None)
        if (rolled_back := self._hold_canary(now)) is not None:
            turn.actions.append(rolled_back)
        else:
            turn.actions += self._retrain(now)
        self._deliver()
        return turn

    def _deliver(self) -> None:
        sent, failed = self._alerts.deliver(self._now())
        if sent or failed:
            self._tell(f"Notifications: {sent} sent" + (f", {failed} failed and are tried again" if failed else ""))

    def close(self) -> None:
        """Close the stores."""
        for store in (self._traffic, self._windows, self._actions, self._alerts):
            store.close()

    def _close(self, window: Window, now: datetime) -> Window:
        judge, card, policy = self._judge, self._card, self._policy
        judged = self._windows.judge(window, self._traffic, judge=judge, sampling_rate=self._cut.sampling_rate)
        drift = topic_drift([record.question for record in judged.records], self._topics)
        result = self._windows.result(window, judged, card=card, threshold=policy.alert_threshold, drift=drift)
        name = f"window-{policy.name}-version-{window.model_version or 'unknown'}-{window.start:%Y%m%dT%H%M%S}.html"
        # A model version of imported traffic is a stranger's text.
        page = self._workspace.reports / "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[-200:]
        earlier = self._windows.closed(1, window.model_version)
        promoted = not earlier or earlier[-1].id == window.id
        snapshot = window_report(
            policy,
            window,
            result=result,
            frame=verdict_frame(judged.records, judged.verdicts),
            promoted=promoted,
            out=page,
        )
        self._dashboard.add(snapshot, window)
        closed = self._windows.close_window(window, result.model_copy(update={"report": str(page)}), now=now)
        self._tell(f"{closed.label}: {result.status}, corrected guardrail score {result.corrected}, {result.n} records")
        found = f"the corrected guardrail score is {result.corrected}, the threshold {result.threshold:g}; {page}"
        if result.status in ("suspected", "detected"):
            self._alert("suspected", closed.label, at=now, text=found)
        if result.status == "detected":
            self._alert("detected", closed.label, at=now, text=found)
        if result.unjudged_share > _MOSTLY_UNJUDGED:
            self._alert(
                "unjudged",
                closed.label,
                at=now,
                text=f"{result.unjudged_share:.0%} of the records are unjudged; {page}",
            )
        elif result.status == "ok":
            self._alerts.recovered(now, closed.label)
        return closed

    def _hold_canary(self, now: datetime) -> Action | None:
        """Hold a new champion against its predecessor on the same questions; the rollback where it is worse."""
        name = self._policy.registered_model
        champion, history = registry.champion_version(name), registry.promotions(name)
        if not history or history[-1].version != champion or history[-1].rollback or not history[-1].before:
            return None
        promotion = history[-1]
        if now > promotion.at + self._settings.watch.canary:
            return None
        windows = [w for w in self._windows.closed(_SHOWN, champion) if w.end > promotion.at]
        seen = {(w.id, w.state) for w in windows}
        if not windows or seen <= self._compared:
            return None
        judged = self._windows.judged(windows, self._traffic)
        comparison = self._against(promotion.before, judged)
        self._compared |= seen
        subject = windows[-1].label
        found = (
            f"on {comparison.n} questions of its traffic, version {champion} passes {comparison.difference:+.3f} "
            f"[{comparison.low:+.3f}, {comparison.high:+.3f}] against version {promotion.before}"
        )
        if not comparison.n or comparison.high >= 0:
            self._tell(f"Canary: {found}: it stays.")
            return None
        if self._dry_run:
            return self._once(Action(at=now, kind="would_roll_back", version=champion, subject=subject, why=found))
        registry.roll_back(name, CANARY, why=found, at=now)
        return self._done(Action(at=now, kind="rolled_back", version=champion, subject=subject, why=found))

    def _against(self, predecessor: str, judged: Judged) -> Comparison:
        """The gate's comparison of the champion's verdicts with those on its predecessor's answers."""
        ids = [record.id for record in judged.records]
        known = self._actions.replayed(ids, predecessor, judge_id=self._judge.id)
        missing = [record for record in judged.records if record.id not in known]
        if missing:
            model = registry.find(self._policy.registered_model, predecessor, state=self._workspace.root)
            conversations = [[{"role": "user", "content": record.question}] for record in missing]
            settings = self._settings.model
            with progress(f"answers of version {predecessor}", len(missing), unit="questions") as advance:
                loaded = load(model.folder, settings.precision)
                answers = generate(
                    loaded,
                    conversations,
                    max_new_tokens=settings.max_new_tokens,
                    slots=settings.batch_size,
                    advance=advance,
                )
            asked = [
                Record(question=record.question, answer=answer.text, finished=answer.finished)
                for record, answer in zip(missing, answers, strict=True)
            ]
            verdicts = self._judge.judge(asked)
            self._actions.add_replays([record.id for record in missing], predecessor, verdicts=verdicts)
            known |= dict(zip([record.id for record in missing], verdicts, strict=True))
        return compare([known[i] for i in ids], judged.verdicts)

    def _retrain(self, now: datetime) -> list[Action]:
        """Retrain the champion where its newest window is ``detected``, if it may be."""
        name = self._policy.registered_model
        champion = registry.champion_version(name)
        newest = self._windows.closed(1, champion)
        if not newest or newest[0].result is None or newest[0].result.status != "detected":
            return []
        window, history = newest[0], registry.promotions(name)
        if history and window.end <= history[-1].at:
            return []  # its traffic is from before the promotion
        past = self._actions.newest(1000)
        unfinished = bool(past) and past[-1].kind == "retraining"
        if not unfinished and (reason := self._must_wait(past, history, now=now)):
            if window.label + reason not in self._told:
                self._told.add(window.label + reason)
                self._tell(f"Not retrained: {reason}.")
            return []
        why = f"{window.label} is detected: {window.result and window.result.corrected}"
        if self._dry_run:
            would = self._once(Action(at=now, kind="would_retrain", version=champion, subject=window.label, why=why))
            return [would] if would else []
        if not unfinished:
            self._actions.add(Action(at=now, kind="retraining", version=champion, subject=window.label, why=why))
        self._tell(f"Retrain: {why}")
        try:
            improved = self._improve(self._improvement(champion, now))
        except Exception as error:
            self._done(
                Action(at=self._now(), kind="failed", version=champion, subject=window.label, why=str(error)[:500])
            )
            if isinstance(error, UserError):
                self._tell(f"The retraining failed: {error}")
                return self._actions.newest(1)
            raise
        finally:
            open_tracking(self._workspace, name)  # ZenML's tracker resets MLflow after each step
        failed = "; ".join(test["description"] for test in improved.decision["tests"] if not test["passed"])
        kind: Kind = "promoted" if improved.promoted else "refused"
        why = f"the gate: {failed or 'all tests passed'}; {improved.decision['report']}"
        return [
            self._done(Action(at=self._now(), kind=kind, version=improved.challenger, subject=window.label, why=why))
        ]

    def _must_wait(self, past: Sequence[Action], history: Sequence[registry.Promotion], *, now: datetime) -> str:
        """Why nothing may be retrained now; empty where it may."""
        watch = self._settings.watch
        free = free_at(watch, past, history=history)
        if free and now < free:
            return f"it cools down until {free:%Y-%m-%d %H:%M} UTC"
        today = sum(a.kind == "retraining" and a.at > now - timedelta(days=1) for a in past)
        if today >= watch.retrainings_a_day:
            return f"the budget of {watch.retrainings_a_day} retrainings a day is used up"
        return ""

    def _improvement(self, champion: str, now: datetime) -> Improvement:
        judged = self._windows.judged(self._windows.closed(_SHOWN, champion), self._traffic)
        rows = list(zip(judged.records, judged.verdicts, strict=True))[-self._settings.watch.training_records :]
        train = [(record, verdict) for record, verdict in rows if not is_held_out(record.question)]
        held_out = {
            normalized(record.question): {"question": record.question, "in_scope": verdict.in_scope}
            for record, verdict in rows
            if is_held_out(record.question) and verdict.in_scope is not None and record.question.strip()
        }
        judged = Judged(records=[record for record, _ in train], verdicts=[verdict for _, verdict in train])
        ids = [record.id for record, _ in train]
        return Improvement(
            champion=champion, record_ids=ids, judged=judged, held_out=list(held_out.values()), card=self._card, at=now
        )

    def _once(self, action: Action) -> Action | None:
        """Write down what a dry run would do, once a window."""
        if any((a.kind, a.subject) == (action.kind, action.subject) for a in self._actions.newest(1000)):
            return None
        return self._done(action)

    def _alert(self, kind: AlertEvent, subject: str, *, at: datetime, text: str) -> None:
        for alert in self._alerts.event(kind, subject, at=at, text=text):
            self._tell(f"Alert {alert.id} ({alert.severity}, {alert.rule}): {alert.text}")

    def _done(self, action: Action) -> Action:
        if action.kind in ("refused", "promoted", "rolled_back", "failed"):
            self._alert(action.kind, f"version {action.version}, {action.subject}", at=action.at, text=action.why)
        self._tell(f"{action.kind.replace('_', ' ').capitalize()}: version {action.version}: {action.why}")
        return self._actions.add(action)


def free_at(watch: WatchSettings, past: Sequence[Action], *, history: Sequence[registry.Promotion]) -> datetime | None:
    """When the cool-down after the last outcome, promotion or rollback is over; ``None`` where there was none."""
    acted = [action.at for action in past if action.kind in _ENDS] + [promotion.at for promotion in history]
    return max(acted) + watch.cooldown if acted else None


def cut_of(settings: Settings) -> Cut:
    """How the settings have traffic cut."""
    monitoring = settings.monitoring
    return Cut(
        length=monitoring.window,
        records=monitoring.window_records,
        lateness=monitoring.lateness,
        sampling_rate=monitoring.sampling_rate,
    )


def is_held_out(question: str) -> bool:
    """Whether a question of the traffic is kept for the gate: one in three, by the hash of its words."""
    return hashlib.sha256(normalized(question).encode()).digest()[0] % _HELD_OUT == 0
