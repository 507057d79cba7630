"""The data that flows: questions, records, verdicts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["pass", "fail", "unjudged"]
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
"""A record's time before that is wrong: there lie the zeros of spreadsheets, Go and .NET."""
MOST_AHEAD = timedelta(days=1)
"""A record's time that lies further ahead of the present one is wrong: clocks and time zones differ by less."""


class Record(BaseModel):
    """One question that the assistant was asked and the answer it gave.

    Attributes:
        in_scope: whether the question is in the policy's scope, where a label says so; ``None`` on real traffic.
        registered_model: whose version answered, which tells one policy's records from another's; empty where nothing
            says it.
        asked_at: time of the question, in UTC.
        latency_s: seconds from the question's arrival to the whole answer.
        finished: ``False`` where the answer was cut at its token limit.
        redacted: how much personal data of each kind was taken out of question and answer, of the kinds that occur.
        conversation: a hash that records of one user or one conversation share, which are alike; empty where it is not
            known.
    """

    model_config = ConfigDict(frozen=True)
    question: str
    answer: str
    in_scope: bool | None = None
    id: str = ""
    registered_model: str = ""
    model_version: str = ""
    asked_at: datetime | None = None
    latency_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = True
    redacted: dict[str, int] = Field(default_factory=dict)
    conversation: str = ""


class Verdict(BaseModel):
    """What a judge says of one record.

    Attributes:
        outcome: ``pass``, ``fail``, or ``unjudged`` where the judge could not say.
        score: the judge's probability of a pass, in [0, 1]; ``None`` where unjudged.
        explanation: one sentence for a reader.
        judge_id: which judge said it.
        in_scope: whether the question is in scope: the record's label where it has one, else the judge's opinion.
        declined: whether the answer declines the question.
        scope_score: the judge's probability that the question is in scope, in [0, 1]; ``None`` where it gives none or a
            label says it.
        cause: why it is unjudged; ``None`` otherwise.
    """

    model_config = ConfigDict(frozen=True)
    outcome: Outcome
    score: float | None
    explanation: str
    judge_id: str
    in_scope: bool | None = None
    declined: bool | None = None
    scope_score: float | None = None
    cause: str | None = None


class Feedback(BaseModel):
    """What somebody thought of an answer.

    Attributes:
        thumb: whether they liked it. A customer can dislike a right refusal, so it is no verdict.
        by: the name of the API key that it came with; the newest of one key on one record counts.
        given_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    record_id: str
    thumb: Literal["up", "down"]
    comment: str = ""
    by: str = ""
    given_at: datetime | None = None


class Judged(BaseModel):
    """Records and a verdict on each, in the order of the questions."""

    model_config = ConfigDict(frozen=True)
    records: list[Record]
    verdicts: list[Verdict]
