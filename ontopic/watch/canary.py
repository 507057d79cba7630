"""The canary stretch: a new champion is held against its predecessor on the same requests, rolled back if worse.

The stretch has a known end, and its looks are counted: one before the end needs three standard errors, the one at the
end takes what these have left of the level (``ontopic.statistics.group_sequential``).
"""

from __future__ import annotations

from datetime import datetime

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.windows import WindowStore
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.rollouts import part_of
from ontopic.state.workspace import Workspace
from ontopic.statistics.group_sequential import LEVEL
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action
from ontopic.watch.canary_evidence import CanaryEvidence, evidence_of
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal
from ontopic.watch.replays import Replays

CANARY = "the canary"
_NEWEST_WINDOWS = 50  # are looked at for one that is new; what a turn costs must not follow history


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
        name = policy.registered_model
        self._replays = Replays(settings, name, workspace=workspace, actions=journal.actions)
        self._dry: list[CanaryEvidence] = []  # looks of a dry run, which spend nothing

    @property
    def _registry(self) -> ModelRegistry:
        return open_registry(self._workspace, self._policy.registered_model)

    def hold(self, now: datetime) -> Action | None:
        """Look, where a window of a new champion was closed since the last look, and once after its stretch has ended,
        whenever that is noticed; returns the rollback where it is worse.
        """
        promotion = self._promotion()
        if promotion is None:
            return None
        past = self._past(promotion)
        if past and past[-1].look.final:
            return None
        end = promotion.at + self._settings.watch.canary
        final = now > end + self._settings.monitoring.lateness
        subject = f"the end of version {promotion.version}'s canary stretch" if final else self._new(promotion, past)
        if subject is None:
            return None
        evidence = self._look(promotion, past, until=min(now, end), now=now, final=final)
        if not evidence.comparison.n and not final:
            return None
        done = self._act(evidence, subject)
        # Last, so that a look that was killed is taken again.
        if self._journal.dry_run:
            self._dry.append(evidence)
        else:
            self._journal.actions.add_look(evidence)
        return done

    def _promotion(self) -> Promotion | None:
        """The champion's, where it has a predecessor to compare it with."""
        registry = self._registry
        champion, history = registry.champion(), registry.promotions()
        if not self._settings.watch.canary or not history or history[-1].version != champion:
            return None
        last = history[-1]
        if last.rollback or not last.before:
            return None
        if last.before not in registry.versions():
            line = f"Canary: version {champion} is not compared: version {last.before} is gone"
            self._journal.tell_once(line, subject="the canary")
            return None
        return last

    def _past(self, promotion: Promotion) -> list[CanaryEvidence]:
        kept = self._journal.actions.looks(promotion.version, promotion.at)
        dry = [each for each in self._dry if (each.version, each.promoted_at) == (promotion.version, promotion.at)]
        return kept + dry

    def _new(self, promotion: Promotion, past: list[CanaryEvidence]) -> str | None:
        """The newest of the windows that were closed since the last look; ``None`` where none was."""
        since = past[-1].at if past else promotion.at
        return closed_since(self._windows, promotion.version, begun=promotion.at, since=since)

    def _look(
        self, promotion: Promotion, past: list[CanaryEvidence], *, until: datetime, now: datetime, final: bool
    ) -> CanaryEvidence:
        judge, before = self._judge.judge, promotion.before
        rate = self._settings.monitoring.sampling_rate
        ids = self._windows.asked(promotion.version, promotion.at, until=until, sampling_rate=rate)
        records = self._traffic.records(ids=ids)
        # Both sides by one judge; what it could not judge of either is asked again.
        judged = judge_records(self._windows, records, judge=judge, what=f"version {promotion.version}'s answers")
        if missing := self._replays.missing(records, before, judge=judge):
            self._journal.tell(
                f"Canary: version {before} answers {len(missing):,} questions of its successor's traffic"
            )
        with self._windows.spending.of(judge):
            verdicts = self._replays.verdicts(records, before, judge=judge)
        stretch = {"version": promotion.version, "predecessor": before, "promoted_at": promotion.at}
        stretch |= {"at": now, "judge_id": judge.id}
        level = LEVEL * part_of(self._entry(promotion))
        return evidence_of(judged, verdicts, past=past, stretch=stretch, final=final, level=level)

    def _entry(self, promotion: Promotion) -> Entry | None:
        """The promotion's in the promotion record; ``None`` of before that began."""
        registry = self._registry
        entries = registry.record.entries(registry.name)
        return next((entry for entry in entries if entry.number == promotion.entry), None)

    def _act(self, evidence: CanaryEvidence, subject: str) -> Action | None:
        champion, at, why = evidence.version, evidence.at, str(evidence)
        if evidence.look.worse and self._journal.dry_run:
            would = Action(at=at, kind="would_roll_back", version=champion, subject=subject, why=why)
            return self._journal.would(would)
        if evidence.look.worse:
            self._registry.roll_back(CANARY, why=why, at=at, facts=evidence.facts())
            done = Action(at=at, kind="rolled_back", version=champion, subject=subject, why=why)
            return self._journal.done(done)
        if not evidence.look.final:
            self._journal.tell(f"Canary: {why}: it stays.")
            return None
        why = f"{why}: it stays. {evidence.power}" if evidence.comparison.n else why
        if self._journal.dry_run:
            self._journal.tell_once(f"Canary: {why}", subject=subject)
        else:
            self._journal.done(Action(at=at, kind="stayed", version=champion, subject=subject, why=why))
        return None


def closed_since(windows: WindowStore, version: str, *, begun: datetime, since: datetime) -> str | None:
    """The newest of a version's windows that end after a stretch has begun and were closed since a look; ``None`` where
    none was."""
    closed = windows.closed(_NEWEST_WINDOWS, version)
    new = [each for each in closed if each.end > begun and each.closed_at is not None and each.closed_at > since]
    return new[-1].label if new else None
