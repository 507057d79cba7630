"""Labelled questions and records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, RootModel, StrictBool

from ontopic.data.language import language
from ontopic.data.rows import load_rows
from ontopic.data.same_question import identity, spoken
from ontopic.data.splits import QUESTION_SHARES, RECORD_SHARES, with_splits
from ontopic.records import Message as RecordMessage
from ontopic.records import Record, Role, question_in

# Questions of "judge" teach the embedded judge; those of "train" do too, and are asked as traffic.
Split = Literal["train", "judge", "calibration", "evaluation"]
OTHER_LANGUAGE = "other_language"
"""The kind of a question that is asked in another language than most are."""
SCOPE_BY_JUDGE = "traffic, scope by the judge"
"""The kind of a question whose ``in_scope`` is no label: the judge's opinion of what somebody asked."""
MOST_CHARACTERS = 20_000
"""Of a question that is labelled, and of an answer."""
_MAX_CONTEXT = 200_000  # characters of a message beside the question, which may hold documents


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


_Question = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS), AfterValidator(_not_blank)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Role
    content: str = Field(max_length=_MAX_CONTEXT)


def _from_cell(given: Any) -> Any:
    """Messages as a table's cell holds them: JSON, or nothing."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return ()
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError:
        raise ValueError("must be a list of messages") from None


_Messages = Annotated[tuple[Message, ...], BeforeValidator(_from_cell)]


class Question(BaseModel):
    """A question with its scope label.

    Attributes:
        history: what was said before it in the same conversation, the system prompt included.
        after: what stands between it and the answer, such as what a tool found.
        kind: what makes it hard ("instruction_override", "two_part", ...); empty for a plain question.
        intent: what it is about, one name for all questions of a kind.
        reference: a short right answer, where one was written.
        split: what it is used for; drawn by ``load_questions`` where it has none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    question: _Question
    in_scope: StrictBool
    history: _Messages = ()
    after: _Messages = ()
    kind: str = ""
    intent: str = ""
    reference: str | None = None
    split: Split | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation, as an OpenAI-compatible server takes it: the question last, but for ``after``."""
        asked = {"role": "user", "content": self.question}
        return [*(turn.model_dump() for turn in self.history), asked, *(turn.model_dump() for turn in self.after)]

    @property
    def identity(self) -> str:
        """The same for the same question in the same conversation, in whatever letters."""
        return identity(self.messages)

    @property
    def spoken(self) -> str:
        """The same for questions that must not lie on two sides of a split, whatever their system prompts."""
        return spoken(self.messages)

    def answered(self, answer: str) -> Record:
        """A record of an answer to it, with its conversation and its scope."""
        return Record(
            question=self.question, answer=answer, in_scope=self.in_scope, messages=_more_than_question(self.messages)
        )

    @classmethod
    def asked_in(cls, record: Record, **label: Any) -> Question:
        """The question of a record in its conversation.

        Args:
            label: the other fields.

        Raises:
            ValidationError: it is blank or too long to be asked again.
        """
        place = question_in(record.request)
        around = {"history": record.request[:place], "after": record.request[place + 1 :]}
        return cls.model_validate({"question": record.question, **around, **label})


class Questions(RootModel[list[Question]]):
    """Questions in an order, as steps pass them on."""


def _more_than_question(request: Sequence[dict[str, str]]) -> tuple[RecordMessage, ...]:
    """Messages as a record keeps them: none where there is the question alone."""
    return tuple(RecordMessage.model_validate(message) for message in request) if len(request) > 1 else ()


class LabelledRecord(BaseModel):
    """A question and an answer with the verdict that a right judge gives.

    Attributes:
        messages: all that was sent, as in ``Record``; empty where it was the question alone.
        label: ``None`` where there is no label.
        in_scope: whether the question is in scope, where known.
        kind: what kind of answer it is ("leak", "partial_refusal", ...).
        intent: what the question is about, where known, as in ``Question``.
        why: the reason for the label.
        reference: a true answer, for reference grading.
        benchmark_answer: what another model answered, for pairwise grading.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    question: _Question
    answer: str = Field(max_length=MOST_CHARACTERS)
    messages: _Messages = ()
    label: Literal["pass", "fail"] | None = None
    in_scope: StrictBool | None = None
    kind: str = ""
    intent: str = ""
    why: str = ""
    split: Split | None = None
    reference: str | None = None
    benchmark_answer: str | None = None

    @classmethod
    def of(cls, record: Record, **label: Any) -> LabelledRecord:
        """A record with its conversation and its scope, and what else is known of it.

        Raises:
            ValidationError: it is blank or too long for a label.
        """
        row = record.model_dump(include={"question", "answer", "messages", "in_scope"})
        return cls.model_validate(row | label)

    @property
    def request(self) -> list[dict[str, str]]:
        """As ``Record.request``."""
        return self.record().request

    @property
    def spoken(self) -> str:
        """As ``Question.spoken``."""
        return spoken(self.request)

    @property
    def conversation_and_answer(self) -> tuple[str, str]:
        """See the function of this name."""
        return conversation_and_answer(self.record())

    def record(self, *, in_scope: bool | None = None) -> Record:
        """What a judge is shown of it: the conversation and the answer, with no label but the scope where given."""
        messages = _more_than_question([message.model_dump() for message in self.messages])
        return Record(question=self.question, answer=self.answer, in_scope=in_scope, messages=messages)


def conversation_and_answer(record: Record) -> tuple[str, str]:
    """What makes two records alike to whoever labels them: every message to the letter, and the answer."""
    return json.dumps(record.request), record.answer


def load_questions(
    source: str, base: Path | None = None, *, split: Split | None = None, languages: Sequence[str] = ()
) -> list[Question]:
    """The questions of ``source``, all of them or those of one split, which is drawn where a row has none.

    Args:
        languages: the policy's; where there are some, a question in another one is out of scope whatever its label.

    Raises what ``load_rows`` raises.
    """
    rows = with_splits(load_rows(source, Question, base=base).rows, QUESTION_SHARES, source=source)
    return [_as_answered(row, languages) for row in rows if split is None or row.split == split]


def _as_answered(row: Question, languages: Sequence[str]) -> Question:
    if not (languages and row.in_scope) or language(row.question) in ("", *languages):
        return row
    return row.model_copy(update={"in_scope": False, "reference": None})


def load_records(
    source: str, base: Path | None = None, *, split: Split | None = None, questions: str | None = None
) -> list[LabelledRecord]:
    """The labelled records of ``source``, all of them or those of one split, which is drawn where a row has none.

    Args:
        questions: the source of the questions whose splits the drawn ones must fit.

    Raises what ``load_rows`` raises.
    """
    rows = load_rows(source, LabelledRecord, base=base).rows
    if any(row.split is None for row in rows):
        asked = load_questions(questions, base) if questions else []
        # Records of what a model is only asked teach a judge, as those of "train" do.
        beside = [(row.spoken, "train" if row.split == "judge" else row.split) for row in asked if row.split]
        rows = with_splits(rows, RECORD_SHARES, source=source, beside=beside)
    return [row for row in rows if split is None or row.split == split]
