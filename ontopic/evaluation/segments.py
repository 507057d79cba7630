"""Champion and challenger by segment: kind, language and intent of the question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ontopic.data.by_language import language_name
from ontopic.data.labelled import Question
from ontopic.evaluation.answers import Evaluation
from ontopic.records import Verdict
from ontopic.statistics.rates import Rate, rate
from ontopic.statistics.scores import score

By = Literal["kind", "language", "intent"]
_FEWEST = 5


class SegmentScore(BaseModel):
    """One model on the questions of a segment: the shares, and how many answers were not judged."""

    model_config = ConfigDict(frozen=True)
    guardrail_score: Rate
    unjudged: int
    over_refusal: Rate = rate(0, 0)  # of those kept before it was counted, as is the leak
    leak: Rate = rate(0, 0)


class Segment(BaseModel):
    """The questions of one kind, language or intent, which both models answered.

    Attributes:
        name: of a language its ISO 639 code, ``unsure`` where a question does not tell; where it has no kind ``plain``,
            where it has no intent ``not named``. Those of fewer than 5 questions, which say little, are one segment.
        n: how many questions there are.
    """

    model_config = ConfigDict(frozen=True)
    by: By
    name: str
    n: int
    champion: SegmentScore
    challenger: SegmentScore


def segments(champion: Evaluation, challenger: Evaluation) -> list[Segment]:
    """The segments of the questions that both answered, the largest first.

    Raises:
        ValueError: they did not answer equally many.
    """
    cells: dict[tuple[By, str], list[tuple[Verdict, Verdict]]] = {}
    for question, before, after in zip(champion.questions, champion.verdicts, challenger.verdicts, strict=True):
        for cell in _of(question):
            cells.setdefault(cell, []).append((before, after))
    small: dict[By, list[str]] = {}
    for by, name in [cell for cell, pairs in cells.items() if len(pairs) < _FEWEST]:
        small.setdefault(by, []).append(name)
    for by, names in small.items():
        if len(names) > 1:
            together = [pair for name in names for pair in cells.pop((by, name))]
            cells[by, f"{len(names)} others, under {_FEWEST} each"] = together
    found = [
        Segment(
            by=by,
            name=name,
            n=len(pairs),
            champion=_score([before for before, _ in pairs]),
            challenger=_score([after for _, after in pairs]),
        )
        for (by, name), pairs in cells.items()
    ]
    order: tuple[By, ...] = ("kind", "language", "intent")
    return sorted(found, key=lambda each: (order.index(each.by), -each.n, each.name))


def _of(question: Question) -> Iterator[tuple[By, str]]:
    yield "kind", question.kind or "plain"
    yield "language", language_name(question.question)
    yield "intent", question.intent or "not named"


def _score(verdicts: Sequence[Verdict]) -> SegmentScore:
    scores = score(verdicts)
    return SegmentScore(
        guardrail_score=scores.guardrail_score,
        unjudged=scores.unjudged,
        over_refusal=scores.over_refusal,
        leak=scores.leak,
    )
