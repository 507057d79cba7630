"""Labelled questions and records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, StrictBool

from ontopic.data.rows import load_rows
from ontopic.data.splits import QUESTION_SHARES, RECORD_SHARES, with_splits

# Questions of "judge" teach the embedded judge; those of "train" do too, and are asked as traffic.
Split = Literal["train", "judge", "calibration", "evaluation"]
SCOPE_BY_JUDGE = "traffic, scope by the judge"
"""The kind of a question whose ``in_scope`` is no label: the judge's opinion of what somebody asked."""
_MAX_CHARACTERS = 20_000


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


_Question = Annotated[str, Field(min_length=1, max_length=_MAX_CHARACTERS), AfterValidator(_not_blank)]


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    role: Literal["user", "assistant"]
    content: str = Field(max_length=_MAX_CHARACTERS)


class Question(BaseModel):
    """A question with its scope label.

    Attributes:
        history: what was said before it in the same conversation.
        kind: what makes it hard ("instruction_override", "two_part", ...); empty for a plain question.
        intent: what it is about, one name for all questions of a kind.
        reference: a short right answer, where one was written.
        split: what it is used for; drawn by ``load_questions`` where it has none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    question: _Question
    in_scope: StrictBool
    history: tuple[Message, ...] = ()
    kind: str = ""
    intent: str = ""
    reference: str | None = None
    split: Split | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation, the question last, as an OpenAI-compatible server takes it."""
        return [turn.model_dump() for turn in (*self.history, Message(role="user", content=self.question))]


class Questions(RootModel[list[Question]]):
    """Questions in an order, as steps pass them on."""


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
    answer: str = Field(max_length=_MAX_CHARACTERS)
    messages: tuple[Message, ...] = ()
    label: Literal["pass", "fail"] | None = None
    in_scope: StrictBool | None = None
    kind: str = ""
    intent: str = ""
    why: str = ""
    split: Split | None = None
    reference: str | None = None
    benchmark_answer: str | None = None


def load_questions(source: str, base: Path | None = None, *, split: Split | None = None) -> list[Question]:
    """The questions of ``source``, all of them or those of one split, which is drawn where a row has none.

    Raises what ``load_rows`` raises.
    """
    rows = with_splits(load_rows(source, Question, base=base).rows, QUESTION_SHARES, source=source)
    return [row for row in rows if split is None or row.split == split]


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
        beside = [(row.question, "train" if row.split == "judge" else row.split) for row in asked if row.split]
        rows = with_splits(rows, RECORD_SHARES, source=source, beside=beside)
    return [row for row in rows if split is None or row.split == split]
