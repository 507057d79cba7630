"""Retraining: when the champion is trained anew by itself, and on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.settings import Settings
from ontopic.data.held_out import is_held_out
from ontopic.data.labelled import SCOPE_BY_JUDGE, Question
from ontopic.errors import UserError
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged
from ontopic.registry.approval import command
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import ModelRegistry, Promotion
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, free_at
from ontopic.watch.gating_judge import GatingJudge
from ontopic.watch.journal import Journal

NEWEST_WINDOWS = 50
"""Of the champion, to learn from."""


class Improvement(BaseModel):
    """What a retraining works on.

    Attributes:
        judged: to train on: the champion's traffic with its verdicts, in the order of the questions.
        held_out: questions of the same traffic that the gate asks besides its own, with the judge's opinion of their
            scope.
        card: of the judge as it judges in the gate.
        at: the time that a promotion gets.
    """

    model_config = ConfigDict(frozen=True)
    champion: str
    judged: Judged
    held_out: list[Question]
    card: JudgeCard
    at: datetime


class Improved(BaseModel):
    """What came of a retraining: the challenger, the gate's decision, and whether it was promoted.

    Attributes:
        rolls_out: whether its rollout has begun.
    """

    model_config = ConfigDict(frozen=True)
    challenger: str
    promoted: bool
    decision: Decision
    rolls_out: bool = False

    @property
    def kind(self) -> Literal["promoted", "stage", "waiting", "refused"]:
        """What became of the challenger: one that passed the gate and is not promoted is in the first stage of its
        rollout, or waits for approval."""
        if self.rolls_out:
            return "stage"
        return "promoted" if self.promoted else "waiting" if self.decision.passed else "refused"


class Retraining:
    """Retrains the champion of a registered model where its chart's alarm is on, within cool-down and budget.

    The chart carries an alarm from window to window until something is done about it, so that one that comes in a
    cool-down waits for its end. A challenger that the gate refuses is an answer too: the chart begins anew.

    Args:
        improve: trains a challenger and lets the gate decide on its promotion.
        clock: the present time.
    """

    def __init__(
        self,
        settings: Settings,
        registry: ModelRegistry,
        *,
        traffic: TrafficStore,
        windows: WindowStore,
        judge: GatingJudge,
        journal: Journal,
        improve: Callable[[Improvement], Improved],
        clock: Callable[[], datetime],
    ) -> None:
        self._watch, self._registry = settings.watch, registry
        self._traffic, self._windows, self._judge, self._journal = traffic, windows, judge, journal
        self._improve, self._clock = improve, clock

    def look(self, now: datetime, *, record: Sequence[Entry]) -> list[Action]:
        """Retrain where it is wanted and may be; returns what was done.

        A retraining that was killed is taken up again.

        Args:
            record: the promotion record's entries on this registered model.
        """
        champion, history = self._registry.champion(), self._registry.promotions()
        newest = self._windows.closed(1, champion)
        if not newest or not self._alarmed(newest[0]):
            return []
        window = newest[0]
        if history and window.end <= history[-1].at:
            return []  # its traffic is from before the promotion
        past = self._journal.actions.newest()
        unfinished = bool(past) and past[-1].kind == "retraining"
        if not unfinished and (reason := self._must_wait(past, history, record=record, now=now)):
            self._journal.tell_once(f"Not retrained: {reason}.", subject=window.label)
            return []
        why = f"{window.label} is detected: {_evidence(window)}"
        if self._journal.dry_run:
            action = Action(at=now, kind="would_retrain", version=champion, subject=window.label, why=why)
            return [would] if (would := self._journal.would(action)) else []
        if not unfinished:
            self._journal.actions.add(
                Action(at=now, kind="retraining", version=champion, subject=window.label, why=why)
            )
        self._journal.tell(f"Retrain: {why}")
        return [self._retrain(champion, window, now=now)]

    def _alarmed(self, window: Window) -> bool:
        """Whether the alarm is on after the champion's newest window, and nothing was done about it since."""
        result = window.result
        if result is None or result.status != "detected":
            return False  # also where an alarm stands on a judge that is at chance or does not fit
        restarted = self._windows.chart_restarted(window.model_version)
        return result.chart is None or restarted is None or result.chart.since >= restarted  # none: an earlier release

    def _retrain(self, champion: str, window: Window, *, now: datetime) -> Action:
        """The outcome, written down; what is not a user's mistake is raised too."""
        try:
            improved = self._improve(self._improvement(champion, now))
        except Exception as error:
            failed = self._journal.done(
                Action(at=self._clock(), kind="failed", version=champion, subject=window.label, why=str(error)[:500])
            )
            if isinstance(error, UserError):
                self._journal.tell(f"The retraining failed: {error}")
                return failed
            raise
        if improved.kind == "refused":
            self._windows.restart_chart(champion, now)
        failed_tests = "; ".join(test.description for test in improved.decision.tests if not test.passed)
        why = f"the gate: {failed_tests or 'all tests passed'}; {improved.decision.report}"
        if improved.kind == "waiting":
            why += f"; it waits for {command('approve', improved.challenger)}, or reject"
        if improved.kind == "stage":
            why += "; its rollout begins"
        outcome = Action(
            at=self._clock(), kind=improved.kind, version=improved.challenger, subject=window.label, why=why
        )
        return self._journal.done(outcome)

    def _must_wait(
        self, past: Sequence[Action], history: Sequence[Promotion], *, record: Sequence[Entry], now: datetime
    ) -> str:
        """Why nothing may be retrained now; empty where it may."""
        free = free_at(self._watch, past, history=history, record=record)
        if free and now < free:
            return f"it cools down until {free:%Y-%m-%d %H:%M} UTC"
        today = sum(a.kind == "retraining" and a.at > now - timedelta(days=1) for a in past)
        if today >= self._watch.retrainings_a_day:
            return f"the budget of {self._watch.retrainings_a_day} retrainings a day is used up"
        return ""

    def _improvement(self, champion: str, now: datetime) -> Improvement:
        judged = self._windows.judged(self._windows.closed(NEWEST_WINDOWS, champion), self._traffic)
        train, held_out = split(judged, self._watch.training_records)
        return Improvement(champion=champion, judged=train, held_out=held_out, card=self._judge.gate_card, at=now)


def _evidence(window: Window) -> str:
    result = window.result
    return "" if result is None else result.chart.in_words if result.chart else result.named_score


def split(judged: Judged, newest: int) -> tuple[Judged, list[Question]]:
    """The newest records without the questions that are held out, and those questions, each once.

    Args:
        newest: how many of the last records are looked at.
    """
    rows = list(zip(judged.records, judged.verdicts, strict=True))[-newest:]
    train = [(record, verdict) for record, verdict in rows if not is_held_out(record)]
    held_out: dict[str, Question] = {}
    for record, verdict in rows:
        if is_held_out(record) and verdict.in_scope is not None:
            try:
                question = Question.asked_in(record, in_scope=verdict.in_scope, kind=SCOPE_BY_JUDGE)
            except ValidationError:  # nothing in it, or too long to be asked again
                continue
            held_out[question.identity] = question
    taught = Judged(records=[record for record, _ in train], verdicts=[verdict for _, verdict in train])
    return taught, list(held_out.values())
