"""Qualities of answers, made up."""

from __future__ import annotations

from ontopic.evaluation.quality import Quality


def quality_of(similarity: float = 0.6, questions: int = 40, perplexity: float = 46.0) -> Quality:
    """A model's quality, its answers spread about ``similarity``."""
    spread = [similarity + 0.1 * (i % 2) - 0.05 for i in range(questions)]
    names, no = [f"Question {i}?" for i in range(questions)], [False] * questions
    return Quality(
        questions=names,
        similarity=spread,
        reference_nll=[3.0] * questions,
        words=[20] * questions,
        repeats=no,
        truncated=no,
        perplexity=perplexity,
    )
