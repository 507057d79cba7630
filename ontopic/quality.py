"""How good the answers in scope are, beside the verdicts: what the gate holds a challenger to, lest it get worse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import t

from ontopic.judges.sentence_encoder import load_sentence_encoder
from ontopic.labelled_data import Question
from ontopic.models import LanguageModel, chat_prompts
from ontopic.progress import Advance, progress
from ontopic.records import Record
from ontopic.scores import Rate, rate

_BATCH_TOKENS = 1024  # of prompts and references that are read together, padding included


@dataclass(frozen=True)
class Quality:
    """One model's answers to the questions in scope that have a reference, an entry a question, in their order.

    Attributes:
        similarity: cosine of the sentence embeddings of answer and reference.
        reference_nll: mean negative log-likelihood of the reference's tokens, in nats, given the conversation.
        words: how many the answer has.
        repeats: whether it repeats itself, as ``repeats_itself`` has it.
        truncated: whether it was cut at the token limit.
        perplexity: of the model, on a general English text that comes with the package.
    """

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


def measure_quality(language_model: LanguageModel, questions: Sequence[Question], records: Sequence[Record]) -> Quality:
    """Measure answers, one a question, by the references of the questions in scope; those without are left out."""
    pairs = [(q, r) for q, r in zip(questions, records, strict=True) if q.in_scope and q.reference]
    references, answers = [str(q.reference) for q, _ in pairs], [r.answer for _, r in pairs]
    encoder = load_sentence_encoder()
    vectors = encoder.encode(answers) * encoder.encode(references)
    with progress("likelihood of the references", len(pairs), "references") as advance:
        nll = negative_log_likelihood(language_model, [q.messages for q, _ in pairs], references, advance)
    return Quality(
        [q.question for q, _ in pairs],
        vectors.sum(1).tolist(),
        nll,
        [len(text.split()) for text in answers],
        [repeats_itself(text) for text in answers],
        [not r.finished for _, r in pairs],
        perplexity(language_model),
    )


def mean(values: ArrayLike) -> Rate:
    """Mean with Student's 95 % interval; no interval (infinite bounds) of fewer than two values."""
    numbers = np.asarray(values, dtype=float)
    n = len(numbers)
    if n < 2:
        return Rate(float(numbers.mean()) if n else math.nan, -math.inf, math.inf, n)
    half = float(t.ppf(0.975, n - 1) * numbers.std(ddof=1) / math.sqrt(n))
    return Rate(float(numbers.mean()), float(numbers.mean()) - half, float(numbers.mean()) + half, n)


def difference(champion: Quality, challenger: Quality) -> Rate:
    """Mean of challenger's similarity minus champion's, question by question.

    Raises:
        ValueError: the questions differ.
    """
    if champion.questions != challenger.questions:
        raise ValueError("champion and challenger did not answer the same questions in the same order")
    return mean(np.subtract(challenger.similarity, champion.similarity))


def repeats_itself(answer: str) -> bool:
    """Whether four words in a row occur three times, or two words three times in a row."""
    words = answer.lower().replace("'s", " 's").split()
    fours = Counter(zip(words, words[1:], words[2:], words[3:], strict=False))
    twice = any(words[i : i + 2] == words[i + 2 : i + 4] == words[i + 4 : i + 6] for i in range(len(words) - 5))
    return twice or max(fours.values(), default=0) >= 3


def negative_log_likelihood(
    language_model: LanguageModel,
    conversations: Sequence[list[dict[str, str]]],
    answers: Sequence[str],
    advance: Advance | None = None,
) -> list[float]:
    """Mean over the tokens of each answer, in nats, given its conversation.

    Args:
        advance: called with the number of answers that a batch added.
    """
    tokenizer = language_model.tokenizer
    prompts = [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in chat_prompts(tokenizer, conversations)
    ]
    tails = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in answers]
    return _mean_nll(language_model, [(p + a, len(p)) for p, a in zip(prompts, tails, strict=True)], advance)


def perplexity(language_model: LanguageModel) -> float:
    """Of a general English text of some 900 words, paragraph by paragraph: what fine-tuning must not ruin."""
    text = (files("ontopic") / "data" / "general_text.txt").read_text(encoding="utf-8")
    parts = [language_model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("\n\n")]
    rows = [(ids, 1) for ids in parts if len(ids) > 1]
    weights = [len(ids) - 1 for ids, _ in rows]
    return math.exp(float(np.average(_mean_nll(language_model, rows), weights=weights)))


@torch.inference_mode()
def _mean_nll(
    language_model: LanguageModel, rows: Sequence[tuple[list[int], int]], advance: Advance | None = None
) -> list[float]:
    """For each row of token ids, the mean over the tokens from the given place on."""
    model = language_model.model
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and len(rows[order[end]][0]) * (end + 1 - start) <= _BATCH_TOKENS:
            end += 1
        batch = order[start:end]
        longest = len(rows[batch[-1]][0])
        # Padding stands at the end, where no token sees it.
        ids = torch.tensor([rows[i][0] + [0] * (longest - len(rows[i][0])) for i in batch], device=model.device)
        kept = longest + 1 - min(rows[i][1] for i in batch)  # the places before the first wanted token say nothing
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        for row, i in enumerate(batch):
            tokens, first = rows[i]
            wanted = ids[row, first : len(tokens)]
            said = logits[row, first - 1 - (longest - kept) : len(tokens) - 1 - (longest - kept)].float()
            found[i] = float(torch.nn.functional.cross_entropy(said, wanted))
        if advance:
            advance(len(batch))
        start = end
    return found
