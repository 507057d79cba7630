"""The data that flows: questions, records, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["pass", "fail", "unjudged"]
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "content_filter"]
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
"""A record's time before that is wrong: there lie the zeros of spreadsheets, Go and .NET."""
MOST_AHEAD = timedelta(days=1)
"""A record's time that lies further ahead of the present one is wrong: clocks and time zones differ by less."""


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(frozen=True)
    role: Role
    content: str


class Parameters(BaseModel):
    """What a request asked of the generation of its answer, as it was honoured.

    Attributes:
        max_tokens: the most tokens of the answer.
        temperature: 0 where the likeliest token was taken.
        seed: of this answer's samples; ``None`` for any.
        stop: the answer ended before the first of these texts.
    """

    model_config = ConfigDict(frozen=True)
    max_tokens: int = Field(ge=1, le=1 << 20)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: tuple[str, ...] = ()


class GuardDecision(BaseModel):
    """What the guard made of a request, or of the answer to it.

    Attributes:
        mode: whether it was only watching, or had its way.
        stage: where it objected: before generation (``question``) or after it (``answer``); empty where it did not.
        judge_id: of the guard's judge; empty where it was down.
        scope_score: the probability that the question is in scope, in [0, 1]; ``None`` where none was given.
        answer_score: the probability that the answer passes, in [0, 1]; ``None`` where none was given.
        withheld: the model's answer in whose place the refusal went out; empty where none was held back.
        failure: why it could say nothing: down, too slow; empty where it could.
    """

    model_config = ConfigDict(frozen=True)
    mode: Literal["observe", "enforce"]
    stage: Literal["", "question", "answer"] = ""
    judge_id: str = ""
    scope_score: float | None = None
    answer_score: float | None = None
    withheld: str = ""
    failure: str = ""


class Record(BaseModel):
    """One question that the assistant was asked and the answer it gave.

    Attributes:
        messages: all that was sent, system prompt and earlier turns included; empty where it was the question alone,
            or is not known, as of records of older releases.
        parameters: ``None`` where they are not known.
        conversation: the same for the records of one conversation, as far as can be told; empty where it is not known.
        in_scope: whether the question is in the policy's scope, where a label says so; ``None`` on real traffic.
        registered_model: whose version answered, which tells one policy's records from another's; empty where nothing
            says it.
        asked_at: time of the question, in UTC.
        user: a keyed hash of whom the client said it asks for; empty where it named nobody.
        metadata: what else the client said of the request.
        key: the name of the API key that it came with; empty where there was none.
        guard: what the guard decided; ``None`` where none looked at it.
        rollout: the stage of a rollout in which it was answered, such as ``5 %``; empty where none was under way.
        latency_s: seconds from the question's arrival to the whole answer.
        finished: ``False`` where the answer was cut at its token limit.
        redacted: how much personal data of each kind was taken out of question and answer, of the kinds that occur;
            what earlier messages held counts with the records of these.
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
    messages: tuple[Message, ...] = ()
    parameters: Parameters | None = None
    conversation: str = ""
    user: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    key: str = ""
    guard: GuardDecision | None = None
    rollout: str = Field(default="", max_length=16)

    @property
    def finish_reason(self) -> FinishReason:
        """Why the answer ends where it does, as OpenAI's API says it; ``content_filter`` where it is the guard's."""
        if self.guard is not None and self.guard.mode == "enforce" and self.guard.stage:
            return "content_filter"
        return "stop" if self.finished else "length"

    @property
    def request(self) -> list[dict[str, str]]:
        """The messages that the answer follows, as a chat template takes them: the question alone where no others are
        known."""
        if not self.messages:
            return [{"role": "user", "content": self.question}]
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def asked(self) -> str:
        """What the answer follows, for a reader: the question, or the transcript where there is more than that."""
        return transcript(self.request) if self.messages else self.question


THE_QUESTION = "User (the question)"
"""Who speaks in the message that is answered, as a transcript says it."""


def question_in(request: Sequence[Mapping[str, str]]) -> int:
    """The index of the message that is answered: the user's newest; the number of messages where there is none.

    Args:
        request: messages as ``Record.request`` gives them.
    """
    return max((i for i, message in enumerate(request) if message["role"] == "user"), default=len(request))


def turns(request: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Who speaks and what is said, message by message; the user's newest message is ``THE_QUESTION``.

    Args:
        request: as ``question_in`` takes it.
    """
    question = question_in(request)
    return [
        (THE_QUESTION if i == question else message["role"].capitalize(), message["content"])
        for i, message in enumerate(request)
    ]


def transcript(request: Sequence[Mapping[str, str]]) -> str:
    """A conversation for a reader: each message under a line that says who speaks, each line of it behind a bar.

    A line without a bar is ours, whatever was written: no text can pass for another one's message.

    Args:
        request: as ``question_in`` takes it.
    """
    lines = []
    for speaker, said in turns(request):
        lines += [f"{speaker}:", *(f"| {line}" for line in said.splitlines() or [""])]
    return "\n".join(lines)


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
        correction: the answer that they would have wanted; empty where they gave none.
        by: the name of the API key that it came with; the newest of one key on one record counts.
        given_at: in UTC.
    """

    model_config = ConfigDict(frozen=True)
    record_id: str
    thumb: Literal["up", "down"]
    comment: str = ""
    correction: str = ""
    by: str = ""
    given_at: datetime | None = None


class Judged(BaseModel):
    """Records and a verdict on each, in the order of the questions."""

    model_config = ConfigDict(frozen=True)
    records: list[Record]
    verdicts: list[Verdict]
