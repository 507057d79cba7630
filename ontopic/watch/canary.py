"""The canary stretch: a new champion is held against its predecessor on the same questions, rolled back if worse."""

from __future__ import annotations

from datetime import datetime

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.judges.judge import Judge
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.progress import progress
from ontopic.records import Judged, Record, Verdict
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace
from ontopic.statistics.pairs import Comparison, compare
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal

CANARY = "the canary"
_MOST_WINDOWS = 50  # of a stretch


class Canary:
    """Holds each new champion of one policy against its predecessor for the time that the settings give."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        *,
        workspace: Workspace,
        traffic: TrafficStore,
        windows: WindowStore,
        judge: GatingJudge,
        journal: Journal,
    ) -> None:
        self._settings, self._policy, self._workspace = settings, policy, workspace
        self._traffic, self._windows, self._judge, self._journal = traffic, windows, judge, journal
        self._compared: set[tuple[int, str]] = set()

    @property
    def _registry(self) -> ModelRegistry:
        return open_registry(self._workspace, self._policy.registered_model)

    def hold(self, now: datetime) -> Action | None:
        """Compare, where there are new windows of a new champion; returns the rollback where it is worse.

        It is worse where the whole 95 % interval of the paired difference is under zero.
        """
        promotion = self._promotion(now)
        if promotion is None:
            return None
        closed = self._windows.closed(_MOST_WINDOWS, promotion.version)
        windows = [window for window in closed if window.end > promotion.at]
        seen = {(window.id, window.state) for window in windows}
        if not windows or seen <= self._compared:
            return None
        comparison = self._against(promotion.before, self._windows.judged(windows, self._traffic))
        self._compared |= seen
        return self._act(promotion, comparison, newest=windows[-1], now=now)

    def _promotion(self, now: datetime) -> Promotion | None:
        """The champion's, where its canary stretch is not over and it has a predecessor."""
        champion, history = self._registry.champion(), self._registry.promotions()
        if not history or history[-1].version != champion or history[-1].rollback or not history[-1].before:
            return None
        return None if now > history[-1].at + self._settings.watch.canary else history[-1]

    def _act(self, promotion: Promotion, comparison: Comparison, *, newest: Window, now: datetime) -> Action | None:
        champion = promotion.version
        why = (
            f"on {comparison.n} questions of its traffic, version {champion} passes {comparison.with_interval} "
            f"against version {promotion.before}"
        )
        if not comparison.n or comparison.high >= 0:
            self._journal.tell(f"Canary: {why}: it stays.")
            return None
        if self._journal.dry_run:
            return self._journal.would(
                Action(at=now, kind="would_roll_back", version=champion, subject=newest.label, why=why)
            )
        self._registry.roll_back(CANARY, why=why, at=now)
        return self._journal.done(Action(at=now, kind="rolled_back", version=champion, subject=newest.label, why=why))

    def _against(self, predecessor: str, judged: Judged) -> Comparison:
        """The gate's comparison of the champion's verdicts with those on its predecessor's answers."""
        judge, actions = self._judge.judge, self._journal.actions
        ids = [record.id for record in judged.records]
        known = actions.replayed(ids, predecessor, judge_id=judge.id)
        missing = [record for record in judged.records if record.id not in known]
        if missing:
            verdicts = self._replay(missing, predecessor, judge=judge)
            actions.add_replays([record.id for record in missing], predecessor, verdicts=verdicts)
            known |= dict(zip([record.id for record in missing], verdicts, strict=True))
        return compare([known[i] for i in ids], judged.verdicts)

    def _replay(self, records: list[Record], version: str, *, judge: Judge) -> list[Verdict]:
        """Verdicts on what a version answers to the questions of these records."""
        self._journal.tell(f"Canary: version {version} answers {len(records):,} questions of its successor's traffic")
        model = find(self._policy.registered_model, version, workspace=self._workspace)
        settings = self._settings.model
        with progress(f"answers of version {version}", len(records), unit="questions") as advance:
            answers = generate(
                load(model.folder, settings.precision),
                [[{"role": "user", "content": record.question}] for record in records],
                max_new_tokens=settings.max_new_tokens,
                slots=settings.batch_size,
                advance=advance,
            )
        asked = [
            Record(question=record.question, answer=answer.text, finished=answer.finished)
            for record, answer in zip(records, answers, strict=True)
        ]
        with progress(f"verdicts on version {version}", len(asked), unit="records") as advance:
            return judge.judge(asked, advance)
