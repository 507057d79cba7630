"""A model's answers to labelled questions, judged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import Question
from ontopic.judges.judge import Judge
from ontopic.models.generation import generate
from ontopic.models.loading import LanguageModel
from ontopic.progress import progress
from ontopic.records import Record, Verdict
from ontopic.statistics.scores import score


class Evaluation(BaseModel):
    """One model's records on a set of questions, and a verdict on each; in the order of the questions."""

    model_config = ConfigDict(frozen=True)
    questions: list[Question]
    records: list[Record]
    verdicts: list[Verdict]

    def summary(self) -> dict[str, Any]:
        """Guardrail score, over-refusal and leak with intervals, on all questions and on each kind, and every answer
        with its verdict, for JSON."""
        kinds = {question.kind: None for question in self.questions if question.kind}
        return {
            **_scores(self.verdicts),
            "kinds": {
                kind: _scores([v for q, v in zip(self.questions, self.verdicts, strict=True) if q.kind == kind])
                for kind in kinds
            },
            "answers": [
                {
                    "question": record.question,
                    "kind": question.kind,
                    "in_scope": record.in_scope,
                    "answer": record.answer,
                    "verdict": verdict.outcome,
                    "score": verdict.score,
                    "explanation": verdict.explanation or verdict.cause,
                }
                for question, record, verdict in zip(self.questions, self.records, self.verdicts, strict=True)
            ],
        }


def _scores(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    scores = score(verdicts)
    shares = {
        name: getattr(scores, name).model_dump(mode="json") for name in ("guardrail_score", "over_refusal", "leak")
    }
    return {**shares, "unjudged": scores.unjudged}


def evaluate(
    language_model: LanguageModel,
    model_version: str,
    *,
    judge: Judge,
    questions: Sequence[Question],
    max_new_tokens: int,
    batch_size: int,
) -> Evaluation:
    """Let a model answer questions greedily and a judge judge the answers, given each question's scope label."""
    conversations = [question.messages for question in questions]
    with progress(f"answers of version {model_version}", len(questions), unit="questions") as advance:
        answers = generate(
            language_model, conversations, max_new_tokens=max_new_tokens, slots=batch_size, advance=advance
        )
    records = [
        Record(
            question=question.question,
            answer=answer.text,
            in_scope=question.in_scope,
            model_version=model_version,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            finished=answer.finished,
        )
        for question, answer in zip(questions, answers, strict=True)
    ]
    with progress("verdicts", len(records), unit="records") as advance:
        verdicts = judge.judge(records, advance)
    return Evaluation(questions=list(questions), records=records, verdicts=verdicts)


def sample(questions: Sequence[Question], n: int, *, in_scope_share: float, seed: int, skip: int = 0) -> list[Question]:
    """A shuffled sample with the given share of in-scope questions; fewer where there are not enough of a kind.

    Args:
        skip: leave out this many questions that a sample of size ``skip`` with the same seed would hold.
    """
    chance = random.Random(seed)
    chosen = []
    for in_scope, share in ((True, in_scope_share), (False, 1 - in_scope_share)):
        kind = [question for question in questions if question.in_scope is in_scope]
        chance.shuffle(kind)
        start = round(skip * share)
        chosen += kind[start : start + round(n * share)]
    chance.shuffle(chosen)
    return chosen
