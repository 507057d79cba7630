"""How good the answers in scope are, beside the verdicts: what the gate holds a challenger to, lest it get worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import Question
from ontopic.models.repetition import repeats_itself
from ontopic.progress import progress
from ontopic.records import Record
from ontopic.statistics.rates import Rate, mean, rate

if TYPE_CHECKING:
    from ontopic.models.loading import LanguageModel


class Quality(BaseModel):
    """One model's answers to the questions in scope that have a reference, an entry a question, in their order.

    Attributes:
        questions: each by its ``identity``.
        similarity: cosine similarity of the sentence embeddings of answer and reference, in [-1, 1].
        reference_nll: mean negative log-likelihood of the reference's tokens, in nats, given the conversation.
        words: how many the answer has.
        repeats: whether it repeats itself, as ``repeats_itself`` has it.
        truncated: whether it was cut at the token limit.
        perplexity: of the model, on a general English text that comes with the package.
    """

    model_config = ConfigDict(frozen=True)
    questions: list[str]
    similarity: list[float]
    reference_nll: list[float]
    words: list[int]
    repeats: list[bool]
    truncated: list[bool]
    perplexity: float

    def summary(self) -> dict[str, Rate]:
        """Each measure's mean or share, with its 95 % interval."""
        n = len(self.questions)
        return {
            "similarity to the reference": mean(self.similarity),
            "negative log-likelihood of the reference": mean(self.reference_nll),
            "words an answer": mean(self.words),
            "answers that repeat themselves": rate(sum(self.repeats), n),
            "answers cut at the token limit": rate(sum(self.truncated), n),
        }

    def metrics(self) -> dict[str, float]:
        """The means and the perplexity by name, for MLflow."""
        names = ("similarity", "reference_nll", "words", "repeats", "truncated")
        found = {name: float(np.mean(getattr(self, name))) for name in names if self.questions}
        return found | {"perplexity": self.perplexity}


def measure_quality(
    language_model: LanguageModel, questions: Sequence[Question], *, records: Sequence[Record]
) -> Quality:
    """Measure answers, one a question, by the references of the questions in scope; those without are left out."""
    # Whoever only compares what was measured, as a report does, need not wait for torch and Transformers.
    from ontopic.models.likelihood import negative_log_likelihood, perplexity
    from ontopic.models.sentence_encoder import load_sentence_encoder

    pairs = [(q, r) for q, r in zip(questions, records, strict=True) if q.in_scope and q.reference]
    references, answers = [str(q.reference) for q, _ in pairs], [r.answer for _, r in pairs]
    encoder = load_sentence_encoder()
    vectors = encoder.encode(answers) * encoder.encode(references)
    with progress("likelihood of the references", len(pairs), unit="references") as advance:
        nll = negative_log_likelihood(
            language_model, [q.messages for q, _ in pairs], answers=references, advance=advance
        )
    return Quality(
        questions=[q.identity for q, _ in pairs],
        similarity=vectors.sum(1).tolist(),
        reference_nll=nll,
        words=[len(text.split()) for text in answers],
        repeats=[repeats_itself(text) for text in answers],
        truncated=[not r.finished for _, r in pairs],
        perplexity=perplexity(language_model),
    )


def difference(champion: Quality, challenger: Quality) -> Rate:
    """Mean of challenger's cosine similarity to the reference minus champion's, question by question.

    Raises:
        ValueError: the questions differ.
    """
    if champion.questions != challenger.questions:
        raise ValueError("champion and challenger did not answer the same questions in the same order")
    return mean(np.subtract(challenger.similarity, champion.similarity))


def perplexity_ratio(champion: Quality, challenger: Quality) -> Rate:
    """Challenger's perplexity by champion's, on one text and so without an interval."""
    ratio = challenger.perplexity / champion.perplexity
    return Rate(value=ratio, low=ratio, high=ratio, n=1)
