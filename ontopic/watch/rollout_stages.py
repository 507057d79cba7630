"""The stages of a rollout: challenger and champion are held against each other on the same requests in each.

A stage lasts as long as a canary stretch, and until as many requests were compared as a window must have. Its looks are
counted as the canary's are. What all stages may spend on returning a challenger that is as good, the canary after the
promotion among them, is the canary's level; each has the same part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ontopic.config.policy import Policy
from ontopic.config.settings import Settings
from ontopic.config.watch_settings import SHADOW
from ontopic.judges.judge import Judge
from ontopic.monitoring.closing import judge_records
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record, Verdict
from ontopic.registry import rollouts
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.rollouts import Rollout, stage_name
from ontopic.state.workspace import Workspace
from ontopic.statistics.group_sequential import LEVEL
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action
from ontopic.watch.canary import closed_since
from ontopic.watch.canary_evidence import CanaryEvidence, evidence_of
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal
from ontopic.watch.replays import Replays

ROLLOUT = "the rollout"


class RolloutStages:
    """Takes the rollout of one policy's challenger on from stage to stage, or back."""

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
        self._replays = Replays(settings, policy.registered_model, workspace=workspace, actions=journal.actions)

    @property
    def registry(self) -> ModelRegistry:
        """Of the policy's model."""
        return open_registry(self._workspace, self._policy.registered_model)

    def hold(self, now: datetime) -> tuple[list[Action], Rollout | None]:
        """Look where there is something new, and do what that asks for.

        Returns:
            What was done, and the rollout that goes on.
        """
        registry = self.registry
        rollout = rollouts.rollout_of(registry.record.entries(registry.name))
        if self._journal.dry_run:
            if rollout is not None:
                self._look(rollout, now)
            return [], rollout
        rollouts.show(registry, rollout)  # where a process ended between the two
        if rollout is None:
            return [], None
        if (why := self._over(rollout, registry)) is not None:
            rollouts.end(registry, rollout, outcome="ended", by=ROLLOUT, why=why, at=now)
            return [self._done(rollout, now, kind="rolled_back", why=why)], None
        if rollout.is_last:  # a process ended before it promoted it
            return [self._promote(rollout, now)], None
        evidence = self._look(rollout, now)
        done = [] if evidence is None else self._act(rollout, evidence)
        return done, rollouts.rollout_of(registry.record.entries(registry.name))

    def _over(self, rollout: Rollout, registry: ModelRegistry) -> str | None:
        """Why a rollout can't go on."""
        if registry.champion() != rollout.champion:  # by other means than ours, as a move of ours is an entry
            return f"version {rollout.champion}, against which it was rolled out, is the champion no longer"
        gone = [each for each in (rollout.version, rollout.champion) if each not in registry.versions()]
        return f"version {gone[0]} is gone" if gone else None

    def _look(self, rollout: Rollout, now: datetime) -> CanaryEvidence | None:
        """What a look finds; ``None`` where there is nothing new to look at."""
        answering = rollout.champion if rollout.share == SHADOW else rollout.version
        past = self._journal.actions.looks(rollout.version, rollout.since)
        records = self._compared(rollout, answering, until=now)
        over = now > rollout.since + self._settings.watch.canary + self._settings.monitoring.lateness
        final = over and len(records) >= self._policy.least_records
        since = past[-1].at if past else rollout.since
        new = closed_since(self._windows, answering, begun=rollout.since, since=since)
        if not final and (new is None or not records):
            if over:
                self._journal.tell_once(self._too_few(rollout, len(records)), subject=f"{rollout.since}")
            return None
        judge = self._judge.judge
        judged, before = self._both(rollout, records, judge=judge)
        stretch = {"version": rollout.version, "predecessor": rollout.champion, "promoted_at": rollout.since}
        evidence = evidence_of(
            judged,
            before,
            past=past,
            stretch=stretch | {"at": now, "judge_id": judge.id},
            final=final,
            level=LEVEL * rollout.part,
        )
        if not final or self._journal.dry_run:
            self._journal.tell(f"Rollout, {rollout.name}: {evidence}")
        return evidence

    def _compared(self, rollout: Rollout, answering: str, *, until: datetime) -> list[Record]:
        """The records of the stage whose requests both have answered, or the champion can be asked."""
        rate = self._settings.monitoring.sampling_rate
        ids = self._windows.asked(answering, rollout.since, until=until, sampling_rate=rate)
        if rollout.share == SHADOW:
            unseen = {each.record_id for each in self._traffic.shadow(ids, rollout.version)}
            ids = [each for each in ids if each in unseen]
        return self._traffic.records(ids=ids)

    def _both(self, rollout: Rollout, records: Sequence[Record], *, judge: Judge) -> tuple[Judged, list[Verdict]]:
        """The challenger's answers with their verdicts, and verdicts on the champion's."""
        own = judge_records(self._windows, records, judge=judge, what=f"the stage {rollout.name} of a rollout")
        if rollout.share != SHADOW:
            with self._windows.spending.of(judge):
                return own, self._replays.verdicts(records, rollout.champion, judge=judge)
        unseen = {each.record_id: each for each in self._traffic.shadow([r.id for r in records], rollout.version)}
        answered = [unseen[record.id].in_place(record) for record in records]
        with self._windows.spending.of(judge):
            verdicts = self._replays.verdicts(records, rollout.version, judge=judge, answered=answered)
        return Judged(records=answered, verdicts=verdicts), own.verdicts

    def _act(self, rollout: Rollout, evidence: CanaryEvidence) -> list[Action]:
        at, registry = evidence.at, self.registry
        stage = {"share": rollout.share, "since": rollout.since.isoformat(), **evidence.facts()}
        done = []
        if evidence.look.worse:
            rollouts.end(registry, rollout, outcome="returned", by=ROLLOUT, why=str(evidence), at=at, stage=stage)
            done = [self._done(rollout, at, kind="rolled_back", why=str(evidence))]
        elif evidence.look.final:
            why = f"{evidence}. {evidence.power}"
            rollouts.go_on(registry, rollout, by=ROLLOUT, why=why, at=at, stage=stage)
            following = rollout.stages[rollout.stage + 1]
            done = [self._done(rollout, at, kind="stage", why=f"passed: {why} The next is {stage_name(following)}")]
        self._journal.actions.add_look(evidence)
        following_rollout = rollouts.rollout_of(registry.record.entries(registry.name))
        if following_rollout is not None and following_rollout.is_last:
            done.append(self._promote(following_rollout, at))
        return done

    def _promote(self, rollout: Rollout, at: datetime) -> Action:
        rollouts.complete(self.registry, rollout, by=ROLLOUT, at=at)
        return self._done(rollout, at, kind="promoted", why="it has passed the stages of its rollout")

    def _done(self, rollout: Rollout, at: datetime, *, kind: str, why: str) -> Action:
        subject = f"stage {rollout.stage + 1} of {len(rollout.stages)} ({rollout.name})"
        values = {"at": at, "kind": kind, "version": rollout.version, "subject": subject, "why": why}
        return self._journal.done(Action.model_validate(values))

    def _too_few(self, rollout: Rollout, n: int) -> str:
        return (
            f"Rollout: the stage {rollout.name} of version {rollout.version} goes on, as {n:,} of "
            f"{self._policy.least_records:,} requests were compared (least_records of the policy)"
        )
