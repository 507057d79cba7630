"""A model's own best answers, where nobody wrote one: of n that were sampled, the one that the judge scores highest."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.data.same_question import identity
from ontopic.judges.judge import Judge
from ontopic.models.generation import generate
from ontopic.models.loading import LanguageModel
from ontopic.models.repetition import repeats_itself
from ontopic.progress import progress
from ontopic.records import Record

_TEMPERATURE = 0.7


def best_answers(
    language_model: LanguageModel,
    judge: Judge,
    *,
    records: Sequence[Record],
    n: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> dict[str, str]:
    """The best answer by question in its conversation, by its ``identity`` (best of n, as in Nakano et al. 2021, arXiv
    2112.09332).

    The record's answer is one of the n, the others are sampled at temperature 0.7. Left out are answers that the judge
    does not pass, that decline, repeat themselves, or do not come to their end. A question without any other answer is
    left out. Of equal scores the shorter answer wins.

    Args:
        records: in scope, one a question.
    """
    again = [record for record in records for _ in range(n - 1)]
    with progress(f"best of {n} answers", len(again), unit="answers") as advance:
        sampled = generate(
            language_model,
            [record.request for record in again],
            max_new_tokens=max_new_tokens,
            slots=batch_size,
            advance=advance,
            temperature=_TEMPERATURE,
            seed=seed,
        )
    given = [(record, record.answer, record.finished) for record in records]
    given += [(record, answer.text, answer.finished) for record, answer in zip(again, sampled, strict=True)]
    candidates = [
        record.model_copy(update={"in_scope": True, "answer": answer, "finished": finished})
        for record, answer, finished in given
    ]
    candidates = [c for c in candidates if c.finished and not repeats_itself(c.answer)]
    best: dict[str, tuple[float, int, str]] = {}
    for candidate, verdict in zip(candidates, judge.judge(candidates), strict=True):
        if verdict.outcome == "pass" and not verdict.declined:
            rank = (verdict.score or 0.0, -len(candidate.answer), candidate.answer)
            key = identity(candidate.request)
            best[key] = max(rank, best.get(key, rank))
    return {question: answer for question, (_, _, answer) in best.items()}
