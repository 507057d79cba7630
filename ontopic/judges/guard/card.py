"""The guard's card: what over-refusal and leak it has by threshold, the thresholds that were chosen, and their errors.

A guard errs in two ways: it stops a question or an answer that it should let pass (over-refusal), and it lets pass what
it should stop (leak). The thresholds are the highest that keep the first within a given share of the calibration split.
What they then do is measured by cross-fitting: on each half of the split with thresholds that the other half gave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy, Refusals
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import LabelledRecord, Question, load_questions
from ontopic.data.same_question import normalized
from ontopic.errors import UserError
from ontopic.judges.cards.calibration import calibration_records
from ontopic.judges.cards.card import criteria_sha256, labels_sha256
from ontopic.judges.guard.guard import Asked, Guard, Thresholds, record_of, stops_answer, stops_question
from ontopic.judges.judge import Judge
from ontopic.judges.local.at_hand import guard_at_hand
from ontopic.judges.local.judge import load_local_judge
from ontopic.judges.opening import open_judge
from ontopic.progress import progress
from ontopic.records import Message, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import Rate, rate

_GRID = tuple(step / 100 for step in range(51))  # over 0.5 the judge itself would say the opposite


class Errors(BaseModel):
    """How a stage of the guard errs.

    Attributes:
        over_refusal: of what should pass, the share that it stops.
        leak: of what should be stopped, the share that it lets pass.
    """

    model_config = ConfigDict(frozen=True)
    over_refusal: Rate
    leak: Rate

    def __str__(self) -> str:
        return f"over-refusal {self.over_refusal}, leak {self.leak}"


class CurvePoint(Errors):
    """The errors at a threshold."""

    threshold: float


class StageCard(BaseModel):
    """One stage of the guard.

    Attributes:
        curve: on the whole calibration split, by rising threshold.
        chosen: the threshold.
        held_out: its errors by cross-fitting.
    """

    model_config = ConfigDict(frozen=True)
    curve: list[CurvePoint]
    chosen: float
    held_out: Errors

    @property
    def at_chosen(self) -> CurvePoint:
        """The curve at the chosen threshold."""
        return next(point for point in self.curve if point.threshold == self.chosen)


class GuardCard(BaseModel):
    """What a guard is made of, and its errors on labelled records.

    Attributes:
        judge_id: of its judge, which is in the folder of this name beside the card.
        refusals: what goes out in place of what it stops.
        budget: the share of over-refusal that the thresholds were chosen for, half of it for each stage.
        question: before generation, on labelled questions.
        answer: after generation, on labelled answers: those in scope that pass, and those out of scope that fail.
        both: of these answers, by both stages together, by cross-fitting.
        labels_sha256, criteria_sha256: as of a judge's card; it is stale where one has changed.
        measured_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    judge_id: str
    refusals: Refusals
    budget: float
    question: StageCard
    answer: StageCard
    both: Errors
    labels_sha256: str
    criteria_sha256: str
    measured_at: datetime

    @property
    def thresholds(self) -> Thresholds:
        """Those that were chosen."""
        return Thresholds(question=self.question.chosen, answer=self.answer.chosen)

    def metrics(self) -> dict[str, float]:
        """The numbers by name, for a tracker; without those that are not known."""
        found = {"guard_budget": self.budget}
        for name, stage in (("question", self.question), ("answer", self.answer)):
            found[f"guard_{name}_threshold"] = stage.chosen
        for name, errors in (("question", self.question.held_out), ("answer", self.answer.held_out), ("", self.both)):
            for kind in ("over_refusal", "leak"):
                share: Rate = getattr(errors, kind)
                if share.n:
                    found[f"guard_{name}_{kind}".replace("__", "_")] = share.value
        return found


class _Trial(NamedTuple):
    """A labelled question or answer that the guard has to let pass or to stop, with what its judge says.

    Attributes:
        half: of the calibration split: all of one question are in one.
        of_question: the verdict on its question without an answer.
    """

    half: bool
    passes: bool
    verdict: Verdict
    of_question: Verdict


_Stops = Callable[[_Trial, float], bool]


def _question_stops(trial: _Trial, threshold: float) -> bool:
    return stops_question(trial.of_question, threshold)


def _answer_stops(trial: _Trial, threshold: float) -> bool:
    return stops_answer(trial.verdict, threshold)


def guard_card(policy: Policy, *, workspace: Workspace, budget: float) -> GuardCard:
    """The card of the policy's guard, kept in the state folder, where services read it.

    The guard's judge is the embedded one, whatever judges the traffic: it answers in milliseconds. It is trained where
    there is none of the present labels. The card is made anew only where judge, labels, policy or budget have changed.

    Args:
        budget: the over-refusal that may be spent, a share.

    Raises:
        UserError: labelled data is missing or malformed.
    """
    choice = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=workspace.root)
    judge = open_judge(choice, policy, workspace=workspace)
    path = workspace.guard(policy.registered_model)
    kept = _kept(path, workspace)
    questions, records = _labelled(policy)
    sha256 = _labels_sha256(questions, records)
    made_of = (judge.id, budget, policy.sentences, sha256, criteria_sha256(policy))
    if kept and made_of == (kept.judge_id, kept.budget, kept.refusals, kept.labels_sha256, kept.criteria_sha256):
        return kept
    card = measured_guard(judge, policy, budget=budget)
    workspace.files.write(path, card.model_dump_json().encode())
    return card


def enforced_guard(choice: JudgeChoice, policy: Policy, *, workspace: Workspace) -> Guard | None:
    """The guard that answers go through before users get them; ``None`` where none is enforced.

    Raises:
        UserError: labelled data is missing or malformed.
    """
    if choice.guard_budget is None:
        return None
    guard_card(policy, workspace=workspace, budget=choice.guard_budget)
    return kept_guard(policy.registered_model, workspace)


def kept_guard(registered_model: str, workspace: Workspace) -> Guard:
    """The guard of a policy whose card is kept.

    Raises:
        UserError: its card or its judge is missing or cannot be read.
    """
    return load_guard(guard_at_hand(registered_model, workspace) or workspace.guard(registered_model))


def load_guard(path: Path) -> Guard:
    """The guard whose card is in a file, with the judge beside it.

    Raises:
        UserError: one of the two is missing or cannot be read.
    """
    try:
        card = GuardCard.model_validate_json(path.read_bytes())
        judge = load_local_judge(path.parent / card.judge_id)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: the guard's card or its judge cannot be read ({error}); `python run.py calibrate` writes them"
        ) from error
    return Guard(judge, card.thresholds, card.refusals)


def measured_guard(judge: Judge, policy: Policy, *, budget: float) -> GuardCard:
    """Choose the thresholds of a guard on the calibration split, and measure its errors.

    Raises:
        UserError: the split has no labelled record.
    """
    questions, records = _labelled(policy)
    asked, answered = _trials(judge, questions, records=records)
    stages = [
        StageCard(
            curve=[CurvePoint(threshold=t, **dict(_errors(trials, stops, threshold=_always(t)))) for t in _GRID],
            chosen=_chosen(trials, stops, budget=budget / 2),
            held_out=_errors(trials, stops, threshold=_of_other_half(trials, stops, budget=budget / 2)),
        )
        for trials, stops in ((asked, _question_stops), (answered, _answer_stops))
    ]
    by_question = _of_other_half(asked, _question_stops, budget=budget / 2)
    by_answer = _of_other_half(answered, _answer_stops, budget=budget / 2)
    stopped = [_question_stops(t, by_question(t)) or _answer_stops(t, by_answer(t)) for t in answered]
    return GuardCard(
        judge_id=judge.id,
        refusals=policy.sentences,
        budget=budget,
        question=stages[0],
        answer=stages[1],
        both=_counted(answered, stopped),
        labels_sha256=_labels_sha256(questions, records),
        criteria_sha256=criteria_sha256(policy),
        measured_at=datetime.now(UTC),
    )


def _always(threshold: float) -> Callable[[_Trial], float]:
    return lambda _: threshold


def _labelled(policy: Policy) -> tuple[list[Question], list[LabelledRecord]]:
    """Labelled questions, and answers that are to pass or to be stopped, of the calibration split."""
    records = calibration_records(policy, "calibration")
    known = [r for r in records if r.in_scope is not None and r.in_scope == (r.label == "pass")]
    return load_questions(policy.questions, split="calibration"), known


def _trials(
    judge: Judge, questions: Sequence[Question], *, records: Sequence[LabelledRecord]
) -> tuple[list[_Trial], list[_Trial]]:
    """Questions that are in scope or out of it, and answers: of those in scope that pass, out of it that fail."""
    histories = [tuple(Message.model_validate(message) for message in question.messages) for question in questions]
    requests = [tuple(Message.model_validate(message) for message in record.request) for record in records]
    asked = [Asked(messages=messages) for messages in (*histories, *requests)]
    asked += [Asked(messages=m, answer=record.answer) for m, record in zip(requests, records, strict=True)]
    with progress("calibration of the guard", len(asked), unit="verdicts") as advance:
        verdicts = judge.judge([record_of(each) for each in asked], advance)
    n, m = len(questions), len(records)
    of_questions, of_records, of_answers = verdicts[:n], verdicts[n : n + m], verdicts[n + m :]
    before = [
        _Trial(_half(q.question), q.in_scope, verdict, verdict)
        for q, verdict in zip(questions, of_questions, strict=True)
    ]
    after = [
        _Trial(_half(r.question), bool(r.in_scope), verdict, of_question)
        for r, verdict, of_question in zip(records, of_answers, of_records, strict=True)
    ]
    return before, after


def _half(question: str) -> bool:
    return bool(hashlib.sha256(normalized(question).encode()).digest()[0] % 2)


def _chosen(trials: Sequence[_Trial], stops: _Stops, *, budget: float) -> float:
    """The highest threshold whose over-refusal is within the budget; 0 where nothing shows what it would be."""
    passing = [trial for trial in trials if trial.passes]
    if not passing:
        return 0.0
    within = [t for t in _GRID if sum(stops(trial, t) for trial in passing) <= budget * len(passing)]
    return max(within, default=0.0)


def _of_other_half(trials: Sequence[_Trial], stops: _Stops, *, budget: float) -> Callable[[_Trial], float]:
    """The threshold for a trial that the half which it is not in gives."""
    chosen = {half: _chosen([t for t in trials if t.half != half], stops, budget=budget) for half in (False, True)}
    return lambda trial: chosen[trial.half]


def _errors(trials: Sequence[_Trial], stops: _Stops, *, threshold: Callable[[_Trial], float]) -> Errors:
    return _counted(trials, [stops(trial, threshold(trial)) for trial in trials])


def _counted(trials: Sequence[_Trial], stopped: Sequence[bool]) -> Errors:
    passing = [stop for trial, stop in zip(trials, stopped, strict=True) if trial.passes]
    others = [stop for trial, stop in zip(trials, stopped, strict=True) if not trial.passes]
    return Errors(
        over_refusal=rate(sum(passing), len(passing)), leak=rate(sum(not stop for stop in others), len(others))
    )


def _labels_sha256(questions: Sequence[Question], records: Sequence[LabelledRecord]) -> str:
    rows = "".join(question.model_dump_json(exclude={"split"}) for question in questions)
    return hashlib.sha256((rows + labels_sha256(records)).encode()).hexdigest()


def _kept(path: Path, workspace: Workspace) -> GuardCard | None:
    """The card in a file; ``None`` where there is none, or one that another version of this program wrote."""
    try:
        return GuardCard.model_validate_json(workspace.files.read(path))
    except (OSError, ValueError):
        return None
