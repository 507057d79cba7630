"""The answers that a challenger gained and lost, side by side with the champion's, as the gate's page shows them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.records import Outcome, Record, Verdict, turns
from ontopic.reports.parts import Answer, Answered, Badge, Role, Status, Turn

SHOWN = 10
"""Of each kind."""
_MOST_TURNS = 12
_STATUS: dict[Outcome, Status] = {"pass": "passed", "fail": "failed", "unjudged": "neutral"}


class Changes(BaseModel):
    """The questions on which only one of the two passes.

    Attributes:
        gained, lost: how many only the challenger, only the champion passes.
        better, worse: the first of them, as varied as they are.
    """

    model_config = ConfigDict(frozen=True)
    gained: int
    lost: int
    better: list[Answered]
    worse: list[Answered]


def changes(champion: Evaluation, challenger: Evaluation, *, names: tuple[str, str]) -> Changes:
    """What a promotion changes for who asks these questions.

    Args:
        champion, challenger: on the same questions in the same order.
        names: of the two.
    """
    passes = [[verdict.outcome == "pass" for verdict in of.verdicts] for of in (champion, challenger)]
    gained = [i for i, (before, after) in enumerate(zip(*passes, strict=True)) if after and not before]
    lost = [i for i, (before, after) in enumerate(zip(*passes, strict=True)) if before and not after]
    sides: list[tuple[str, Role, Evaluation]] = [
        (names[0], "champion", champion),
        (names[1], "challenger", challenger),
    ]

    def drawn(places: Sequence[int]) -> list[Answered]:
        return [_answered(place, sides) for place in _varied(places, challenger)]

    return Changes(gained=len(gained), lost=len(lost), better=drawn(gained), worse=drawn(lost))


def _varied(places: Sequence[int], challenger: Evaluation) -> list[int]:
    """The first of each sort of question and answer by turns, of each sort the surest verdict first."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place in sorted(places, key=lambda place: -_sureness(challenger.verdicts[place])):
        question, answer = challenger.questions[place], challenger.records[place].answer
        groups.setdefault((question.in_scope, question.kind, question.intent or answer[:60]), []).append(place)
    by_turns = [(turn, order, place) for order, group in enumerate(groups.values()) for turn, place in enumerate(group)]
    return [place for *_, place in sorted(by_turns)[:SHOWN]]


def _sureness(verdict: Verdict) -> float:
    return 0.0 if verdict.score is None else abs(verdict.score - 0.5)


def _answered(place: int, sides: Sequence[tuple[str, Role, Evaluation]]) -> Answered:
    question, record = sides[-1][2].questions[place], sides[-1][2].records[place]
    return Answered(
        question=record.question,
        about=_about(question, record),
        turns=_turns(record),
        answers=[_answer(name, role, record=of.records[place], verdict=of.verdicts[place]) for name, role, of in sides],
    )


def _about(question: Question, record: Record) -> str:
    scope = "not known" if record.in_scope is None else "in scope" if record.in_scope else "out of scope"
    return ", ".join(part.replace("_", " ") for part in (scope, question.kind, question.intent) if part)


def _turns(record: Record) -> list[Turn]:
    if len(record.request) < 2:
        return []
    said = [Turn(speaker=speaker, text=text) for speaker, text in turns(record.request)]
    left_out = len(said) - _MOST_TURNS
    if left_out <= 0:
        return said
    return [Turn(speaker=f"{left_out:,} earlier messages", text="are not shown here."), *said[left_out:]]


def _answer(name: str, role: Role, *, record: Record, verdict: Verdict) -> Answer:
    score = "" if verdict.score is None else f" {verdict.score:.2f}"
    why = verdict.explanation or verdict.cause or ""
    if record.guard is not None and record.guard.mode == "enforce" and record.guard.stage:
        why = f"The guard's refusal, in the place of the model's answer. {why}"
    badge = Badge(status=_STATUS[verdict.outcome], text=f"{verdict.outcome}{score}")
    return Answer(name=name, text=record.answer, role=role, verdict=badge, why=why)
