"""A model's answers to labelled questions, judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, model_validator

from ontopic.data.labelled import Question
from ontopic.judges.guard.guard import Guard
from ontopic.judges.judge import Judge, none_judged
from ontopic.progress import progress
from ontopic.records import Judged, Message, Outcome, Record, Verdict
from ontopic.statistics.scores import Scores, score

if TYPE_CHECKING:
    from ontopic.config.model_settings import ModelSettings
    from ontopic.models.loading import LanguageModel
    from ontopic.state.workspace import Workspace


class JudgedAnswer(BaseModel):
    """One answer as the summary of an evaluation lists it.

    Attributes:
        messages: all that was sent; empty where it was the question alone.
        explanation: the verdict's, or why there is none.
    """

    model_config = ConfigDict(frozen=True)
    question: str
    messages: tuple[Message, ...] = ()
    kind: str
    in_scope: bool | None
    answer: str
    verdict: Outcome
    score: float | None
    explanation: str | None


class EvaluationSummary(Scores):
    """The scores on all questions and on those of each kind, and every answer with its verdict."""

    kinds: dict[str, Scores]
    answers: list[JudgedAnswer]

    def check_any_judged(self) -> None:
        """Raise where the scores say nothing.

        Raises:
            UserError: there are answers, and none was judged.
        """
        if self.answers and self.unjudged == len(self.answers):
            cause = Counter(answer.explanation for answer in self.answers).most_common(1)[0][0]
            raise none_judged(len(self.answers), cause, what="answers")


class Evaluation(BaseModel):
    """One model's records on a set of questions, and a verdict on each; in the order of the questions.

    Attributes:
        records: with what users get: where a guard is enforced, its refusal in place of what it stops.
        alone: the model's own answers and the verdicts on those; ``None`` where no guard is enforced, as they are the
            same then.
    """

    model_config = ConfigDict(frozen=True)
    questions: list[Question]
    records: list[Record]
    verdicts: list[Verdict]
    alone: Judged | None = None

    @model_validator(mode="after")
    def _are_paired(self) -> Evaluation:
        if not len(self.questions) == len(self.records) == len(self.verdicts):
            raise ValueError(
                f"{len(self.questions)} questions, {len(self.records)} records, {len(self.verdicts)} verdicts"
            )
        return self

    @property
    def model_version(self) -> str:
        """Of the model that answered; empty where there is no record."""
        return self.records[0].model_version if self.records else ""

    def summary(self) -> EvaluationSummary:
        """What `python run.py evaluate --out` writes."""
        rows = list(zip(self.questions, self.records, self.verdicts, strict=True))
        kinds = {question.kind: None for question in self.questions if question.kind}
        return EvaluationSummary(
            **dict(score(self.verdicts)),
            kinds={kind: score([verdict for q, _, verdict in rows if q.kind == kind]) for kind in kinds},
            answers=[
                JudgedAnswer(
                    question=record.question,
                    messages=record.messages,
                    kind=question.kind,
                    in_scope=record.in_scope,
                    answer=record.answer,
                    verdict=verdict.outcome,
                    score=verdict.score,
                    explanation=verdict.explanation or verdict.cause,
                )
                for question, record, verdict in rows
            ],
        )


def evaluate(
    language_model: LanguageModel,
    model_version: str,
    *,
    judge: Judge,
    questions: Sequence[Question],
    max_new_tokens: int,
    batch_size: int,
    guard: Guard | None = None,
) -> Evaluation:
    """Let a model answer questions greedily and a judge judge the answers, given each question's scope label.

    Args:
        guard: what the answers go through before users get them; it is told no scope.
    """
    # Whoever only reads what was evaluated, as the gate does, need not wait for torch and Transformers.
    from ontopic.models.generation import generate

    conversations = [question.messages for question in questions]
    with progress(f"answers of version {model_version}", len(questions), unit="questions") as advance:
        answers = generate(
            language_model, conversations, max_new_tokens=max_new_tokens, slots=batch_size, advance=advance
        )
    records = [
        question.answered(answer.text).model_copy(
            update={
                "model_version": model_version,
                "prompt_tokens": answer.prompt_tokens,
                "completion_tokens": answer.completion_tokens,
                "finished": answer.finished,
            }
        )
        for question, answer in zip(questions, answers, strict=True)
    ]
    with progress("verdicts", len(records), unit="records") as advance:
        verdicts = judge.judge(records, advance)
    alone = Evaluation(questions=list(questions), records=records, verdicts=verdicts)
    return alone if guard is None else behind_guard(alone, guard, judge=judge)


def behind_guard(alone: Evaluation, guard: Guard, *, judge: Judge) -> Evaluation:
    """What users get of a model's answers behind a guard, judged, with the answers alone beside it."""
    records = guard.protected(alone.records)
    stopped = [i for i, record in enumerate(records) if record.guard and record.guard.stage]
    verdicts = list(alone.verdicts)
    for i, verdict in zip(stopped, judge.judge([records[i] for i in stopped]) if stopped else [], strict=True):
        verdicts[i] = verdict
    own_answers = Judged(records=alone.records, verdicts=alone.verdicts)
    return Evaluation(questions=alone.questions, records=records, verdicts=verdicts, alone=own_answers)


def evaluate_version(
    version: str,
    questions: Sequence[Question],
    *,
    registered_model: str,
    judge: Judge,
    settings: ModelSettings,
    workspace: Workspace,
    guard: Guard | None = None,
) -> Evaluation:
    """As ``evaluate``, of a registered version, whose weights are loaded for it.

    Raises:
        UserError: there is no such version.
    """
    from ontopic.models.loading import open_model
    from ontopic.registry.versions import find

    return evaluate(
        open_model(find(registered_model, version, workspace=workspace).folder, settings.answering_precision),
        version,
        judge=judge,
        questions=questions,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        guard=guard,
    )
