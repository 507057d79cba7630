"""The automatic loop: windows are closed as time passes, and what they show is acted on.

An alarm of the chart has the champion retrained, within a cool-down and a budget a day. After a promotion comes
a canary stretch: the predecessor answers the new champion's requests too, and where a paired comparison that counts its
looks shows the new one to be worse, it is rolled back. Everything that is done is written down before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pydantic import BaseModel, Field

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.endpoint.refusals import RefusedError
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.closing import Closer, judge_pages
from ontopic.monitoring.failed_requests import FailedRequests
from ontopic.monitoring.judges_beside import judges_beside
from ontopic.monitoring.logged_traffic import log_windows
from ontopic.monitoring.window import Window, cut_of
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Verdict
from ontopic.registry.approval import Waiting
from ontopic.registry.promotions import open_registry
from ontopic.registry.rollouts import Rollout
from ontopic.registry.sign_off import SignOff
from ontopic.registry.tracking import open_tracking
from ontopic.registry.unnamed import named
from ontopic.state.workspace import Workspace
from ontopic.traffic.request_counts import RequestCounts
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore
from ontopic.watch.approvals import Approvals
from ontopic.watch.canary import Canary
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal
from ontopic.watch.retraining import Improved, Improvement, Retraining
from ontopic.watch.rollout_stages import RolloutStages

_SHOWN_ALERTS = 1000


class Turn(BaseModel):
    """What one turn did.

    Attributes:
        taken_in: how many records were new.
        waiting: the challengers that wait for approval, during which none is trained.
        rollout: the one that goes on, during which none is either.
    """

    taken_in: int = 0
    closed: list[Window] = []
    actions: list[Action] = []
    waiting: list[Waiting] = []
    rollout: Rollout | None = Field(default=None, exclude=True)  # with its key, which no client may know


class Watcher:
    """Closes windows of one policy's traffic, alerts, retrains, and rolls back. One at a time: the caller holds the
    lock (``ontopic.commands.locking``).

    Args:
        improve: trains a challenger and lets the gate decide on its promotion; ``None`` where the weights are another
            server's: windows are closed and alerts raised, and that is all.
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
        improve: Callable[[Improvement], Improved] | None,
        tell: Callable[[str], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        since: datetime | None = None,
        dry_run: bool = False,
    ) -> None:
        self._policy, self._workspace, self._tell, self._now, self._since = policy, workspace, tell, now, since
        name = policy.registered_model
        self._traffic = named(TrafficStore(workspace.traffic, name), workspace)
        self._windows = named(WindowStore(workspace.windows, name), workspace)
        self._actions = named(ActionStore(workspace.windows, name), workspace)
        self._alerts = Alerts(workspace.alerts, settings.alerts, policy=policy.name)
        self._registry = open_registry(workspace, name)
        self._cut, self._experiment = cut_of(settings.monitoring), ""
        self._journal = Journal(self._actions, self._alerts, tell=tell, dry_run=dry_run)
        self._judge = GatingJudge(settings.judge_choice, policy, workspace=workspace)
        raising: Any = {"windows": self._windows, "alerts": self._alerts, "limits": settings.monitoring.limits}
        self._closer = Closer(policy, workspace, traffic=self._traffic, **raising)
        self._requests = RequestCounts(workspace.traffic, name)
        self._failed = FailedRequests(self._requests, **raising)
        self._beside = judges_beside(settings, policy, workspace=workspace, windows=self._windows)
        self._sign_off = SignOff(settings.promotion, policy, workspace=workspace, now=now)
        self._approvals = Approvals(self._sign_off, self._journal)
        self._canary = Canary(
            settings,
            policy,
            workspace=workspace,
            traffic=self._traffic,
            windows=self._windows,
            judge=self._judge,
            journal=self._journal,
        )
        self._rollout = RolloutStages(
            settings,
            policy,
            workspace=workspace,
            traffic=self._traffic,
            windows=self._windows,
            judge=self._judge,
            journal=self._journal,
        )
        self._retraining = improve and Retraining(
            settings,
            self._registry,
            traffic=self._traffic,
            windows=self._windows,
            judge=self._judge,
            journal=self._journal,
            improve=improve,
            clock=now,
        )

    def turn(self) -> Turn:
        """Take in what is new, close what is due, and act on it."""
        now, turn = self._now(), Turn()
        self._experiment = open_tracking(self._workspace, self._policy.registered_model)
        named(self._traffic, self._workspace)  # a service of an older release may still write to the store
        turn.taken_in = self._windows.take_in(self._traffic, self._cut, now=now, since=self._since)
        for window in self._windows.due(self._cut, now):
            if (closed := self._close(window, now)) is not None:
                turn.closed.append(closed)
        self._journal.raised(self._closer.add_thumbs())
        self._journal.raised(self._failed.look(now))
        if turn.closed:
            self._closer.show()
        if self._retraining is None:
            self._say_untrained(turn.closed)
        else:
            self._act(turn, self._retraining, now=now)
        self._deliver()
        self._measure_beside(turn)
        return turn

    def _measure_beside(self, turn: Turn) -> None:
        """Have the other judges measure what was closed: last, as nothing waits for what they say."""
        for i, window in enumerate(turn.closed if self._beside.names else ()):
            judged = self._windows.judged([window], self._traffic)
            measured = turn.closed[i] = self._beside.add_to(window, judged, closer=self._closer)
            for side in measured.result.beside if measured.result else ():
                self._tell(f"{window.label}: beside, {side.name}: {side.in_words}")

    def _act(self, turn: Turn, retraining: Retraining, *, now: datetime) -> None:
        turn.actions, turn.waiting = self._approvals.look(now)
        try:
            done, turn.rollout = self._rollout.hold(now)
            turn.actions += done
            if (rolled_back := self._canary.hold(now)) is not None:
                turn.actions.append(rolled_back)
            elif not turn.waiting and turn.rollout is None:
                turn.actions += retraining.look(now, record=self._sign_off.entries())
        except RefusedError as error:
            self._refused(error)

    def _say_untrained(self, closed: Sequence[Window]) -> None:
        if closed and closed[-1].result and closed[-1].result.status == "detected":
            line = "Not retrained: the weights are another server's; see to the model there, or to its prompt"
            self._journal.tell_once(line, subject=closed[-1].label)

    def _refused(self, error: RefusedError) -> None:
        self._journal.tell_once(f"Nothing can be judged: {error}", subject="the judge")

    def log_closed(self) -> None:
        """Log a sample of the newest windows as MLflow's traces: after a turn, as nothing waits for it."""
        uri = self._workspace.mlflow_uri
        log_windows(self._windows, self._traffic, experiment=self._experiment, uri=uri, tell=self._tell)

    def in_words(self, turn: Turn) -> str:
        """What a turn found, also where it had nothing to do."""
        champion = None if self._retraining is None else self._registry.champion()
        whose = "" if champion is None else f" of version {champion}"
        waiting = self._windows.waiting(champion)
        closed = len(turn.closed)
        said = [f"{turn.taken_in:,} new records; {closed} {'window' if closed == 1 else 'windows'} closed"]
        if self._cut.length is not None:
            said.append(f"{waiting:,}{whose} wait for their window of {self._cut.length} to end")
        elif waiting < self._cut.records:
            said.append(f"{waiting:,}{whose} wait, {self._cut.records - waiting:,} more fill a window")
        else:
            said.append(f"{waiting:,}{whose} wait until they are {self._cut.lateness} old")
        newest = self._windows.closed(1, champion)
        if newest and newest[0].result and newest[0] not in turn.closed:
            said.append(f"the newest window, {newest[0].label}, is {newest[0].result.status}")
        if open_ := sum(alert.closed_at is None for alert in self._alerts.history(_SHOWN_ALERTS)):
            said.append(f"{open_} alert{'s are' if open_ > 1 else ' is'} open")
        said += [wait.in_words for wait in turn.waiting] + ([turn.rollout.in_words] if turn.rollout else [])
        if not turn.closed and not turn.actions and not turn.waiting and not turn.rollout:
            said.append("nothing to do")
        return "; ".join(said)

    def _deliver(self) -> None:
        sent, failed = self._alerts.deliver(self._now())
        if sent or failed:
            self._tell(f"Notifications: {sent} sent" + (f", {failed} failed and are tried again" if failed else ""))

    def close(self) -> None:
        """Close the stores."""
        for store in (self._traffic, self._requests, self._windows, self._actions, self._alerts):
            store.close()

    def _close(self, window: Window, now: datetime) -> Window | None:
        """The window as it is closed; ``None`` where it stays open, as the judge has no card yet and gets none now."""
        try:
            card, labels = self._judge.card, self._judge.labels()
        except RefusedError as error:
            self._refused(error)
            return None
        closed = self._closer.close(window, self._judged(window), card=card, now=now, labels=labels)
        if (result := closed.window.result) is not None:
            why = f" ({result.unknown_because})" if result.unknown_because else ""
            said = f"{result.status}{why}, {result.named_score}, {result.n} records"
            self._tell(f"{closed.window.label}: {said}")
        self._journal.raised(closed.alerts)
        return closed.window

    def _judged(self, window: Window) -> Iterator[Judged]:
        """Its sampled records with their verdicts, by the page; unjudged where the judge's server refuses: watching
        goes on."""
        judge, rate = self._judge.judge, self._cut.sampling_rate
        pages = map(self._traffic.records, self._windows.id_pages(window, rate))
        n = round(rate * self._windows.counts(window).n)
        done = 0
        try:
            for page in judge_pages(self._windows, pages, judge=judge, what=window.label, n=n):
                yield page
                done += 1
            return
        except RefusedError as error:
            self._refused(error)
            unjudged = Verdict(outcome="unjudged", score=None, explanation="", judge_id=judge.id, cause=str(error))
        for ids in islice(self._windows.id_pages(window, rate), done, None):
            records, kept = self._traffic.records(ids=ids), self._windows.verdicts(ids, judge.id)
            missing = {record.id: unjudged for record in records if record.id not in kept}
            self._windows.keep_verdicts(missing, judge.id)
            yield Judged(records=records, verdicts=[(kept | missing)[record.id] for record in records])
