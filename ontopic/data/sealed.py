"""The sealed set: a fixed part of the evaluation split that no draw holds, asked only before a promotion."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ontopic.data.labelled import Question, load_questions

SEALED_SHARE = 0.2
LEAST_SEALED = 100
"""Of fewer questions the interval of a paired difference is too wide to contradict anything (about ± 0.06)."""


def is_sealed(question: Question) -> bool:
    """Whether a question is of the sealed part, by the hash of its conversation's words: for good, whatever is added
    beside it."""
    digest = hashlib.sha256(f"sealed {question.spoken}".encode()).digest()
    return int.from_bytes(digest[:4]) < SEALED_SHARE * 2**32


def open_and_sealed(evaluation: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """The questions of the evaluation split that may be drawn, and those that are sealed; none of a small split."""
    sealed = [question for question in evaluation if is_sealed(question)]
    if len(sealed) < LEAST_SEALED or len({question.in_scope for question in sealed}) < 2:
        return list(evaluation), []
    return [question for question in evaluation if not is_sealed(question)], sealed


def sealed_questions(source: str, languages: Sequence[str] = ()) -> list[Question]:
    """The sealed questions of a source; empty where its evaluation split is too small to seal some.

    Args:
        languages: the policy's.

    Raises what ``load_rows`` raises.
    """
    return open_and_sealed(load_questions(source, split="evaluation", languages=languages))[1]


def sealed_in_words(source: str) -> str:
    """How many questions are sealed, or why none are. Raises what ``load_rows`` raises."""
    evaluation = load_questions(source, split="evaluation")
    if sealed := open_and_sealed(evaluation)[1]:
        return f"{len(sealed)} more are sealed: asked once a challenger has passed everything else"
    return (
        f"No question is sealed: the evaluation split has {len(evaluation)}, and a fifth of it must be at least "
        f"{LEAST_SEALED}"
    )


def question_id(question: Question) -> str:
    """A short, stable id of a question and what was said before it, which gives away neither."""
    return hashlib.sha256(question.identity.encode()).hexdigest()[:12]


def sample_sha256(questions: Sequence[Question]) -> str:
    """Of the questions that were asked, in whatever order."""
    return hashlib.sha256("\n".join(sorted(map(question_id, questions))).encode()).hexdigest()
