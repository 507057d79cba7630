"""The guard: a judge that stops what it is certain of, a question before it is answered or the answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from ontopic.config.policy import Refusals
from ontopic.data.language import refusal_to
from ontopic.judges.judge import Judge
from ontopic.records import GuardDecision, Message, Record, Verdict


class Thresholds(BaseModel):
    """How certain the guard must be: it stops what has a lower score, and at 0 nothing.

    Attributes:
        question: of the probability that the question is in scope.
        answer: of the probability that the answer passes.
    """

    model_config = ConfigDict(frozen=True)
    question: float = Field(ge=0, le=1)
    answer: float = Field(ge=0, le=1)


class Asked(BaseModel):
    """What the guard is asked: about a question, or about an answer to it.

    Attributes:
        messages: the conversation, the question among them.
        answer: ``None`` before there is one.
        whole: whether the answer is at its end, or may still come to the subject.
    """

    model_config = ConfigDict(frozen=True)
    messages: tuple[Message, ...]
    answer: str | None = None
    whole: bool = True


class Opinion(BaseModel):
    """What the guard says.

    Attributes:
        stops: whether the refusal is to go out in its place.
        scope_score: the probability that the question is in scope, in [0, 1]; ``None`` where none was given.
        answer_score: the probability that the answer passes, in [0, 1]; ``None`` before there is an answer.
        failure: why it can say nothing, such as a language that its judge does not know; empty where it can.
    """

    model_config = ConfigDict(frozen=True)
    stops: bool = False
    judge_id: str = ""
    scope_score: float | None = None
    answer_score: float | None = None
    failure: str = ""


@dataclass(frozen=True)
class Guard:
    """A judge with the thresholds of its card.

    Attributes:
        judge: one that tells the probability that a question is in scope.
        refusals: what goes out in place of what is stopped.
    """

    judge: Judge
    thresholds: Thresholds
    refusals: Refusals

    def opinions(self, asked: Sequence[Asked]) -> list[Opinion]:
        """One opinion each, in order, judged together.

        A question is judged as one that got no answer, of which the judge says the scope all the same. Of an answer
        that is not at its end only a leak is sure: that the question is out of scope, and that it does not decline.
        """
        verdicts = self.judge.judge([record_of(each) for each in asked])
        return [self._opinion(each, verdict) for each, verdict in zip(asked, verdicts, strict=True)]

    def protected(self, records: Sequence[Record]) -> list[Record]:
        """What users get of these answers: the refusal in place of what is stopped, before generation or after it."""
        before = self.opinions([Asked(messages=messages_of(record)) for record in records])
        after = self.opinions([Asked(messages=messages_of(record), answer=record.answer) for record in records])
        return [self._protected(r, b, after=a) for r, b, a in zip(records, before, after, strict=True)]

    def _opinion(self, asked: Asked, verdict: Verdict) -> Opinion:
        if verdict.outcome == "unjudged":
            return Opinion(judge_id=verdict.judge_id, failure=verdict.cause or "its judge gave no verdict")
        stops = (
            stops_question(verdict, self.thresholds.question)
            if asked.answer is None
            else stops_answer(verdict, self.thresholds.answer, whole=asked.whole)
        )
        return Opinion(
            stops=stops,
            judge_id=verdict.judge_id,
            scope_score=verdict.scope_score,
            answer_score=None if asked.answer is None else verdict.score,
        )

    def _protected(self, record: Record, before: Opinion, *, after: Opinion) -> Record:
        stopped = before.stops or after.stops
        decision = GuardDecision(
            mode="enforce",
            stage="question" if before.stops else "answer" if after.stops else "",
            judge_id=before.judge_id,
            scope_score=before.scope_score,
            answer_score=None if before.stops else after.answer_score,
            withheld=record.answer if stopped else "",
            failure="" if stopped else before.failure or after.failure,
        )
        instead = {"answer": refusal_to(self.refusals, record.question), "finished": True} if stopped else {}
        return record.model_copy(update={"guard": decision, **instead})


def stops_question(verdict: Verdict, threshold: float) -> bool:
    """Whether a question is stopped, by the verdict on it and no answer."""
    return verdict.scope_score is not None and verdict.scope_score < threshold


def stops_answer(verdict: Verdict, threshold: float, *, whole: bool = True) -> bool:
    """Whether an answer is stopped: it fails, and the refusal would say something else."""
    if verdict.outcome != "fail" or verdict.declined or verdict.score is None:
        return False
    if whole:
        return verdict.score < threshold
    # However it goes on, if the question is in scope it may be the right answer.
    return verdict.in_scope is False and max(verdict.score, verdict.scope_score or 0.0) < threshold


def messages_of(record: Record) -> tuple[Message, ...]:
    """The conversation that a record's answer follows: the question alone where no more is known."""
    return record.messages or (Message(role="user", content=record.question),)


def record_of(asked: Asked) -> Record:
    """What the judge is asked, which is told no scope: a record without an answer where there is none yet."""
    users = [message.content for message in asked.messages if message.role == "user"]
    question = users[-1] if users else ""
    return Record(question=question, answer=asked.answer or "", messages=asked.messages)
