"""How likely a language model finds a text: negative log-likelihood of answers, perplexity of a general text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch

from ontopic.models.batches import packed_by_tokens
from ontopic.models.chat_template import chat_prompts
from ontopic.models.loading import LanguageModel
from ontopic.progress import Advance

_BATCH_TOKENS = 1024  # of texts that are read together, padding included


def negative_log_likelihood(
    language_model: LanguageModel,
    conversations: Sequence[list[dict[str, str]]],
    *,
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
    return _mean_nll(language_model, [(p + a, len(p)) for p, a in zip(prompts, tails, strict=True)], advance=advance)


def perplexity(language_model: LanguageModel) -> float:
    """Of a general English text of some 900 words, paragraph by paragraph: what fine-tuning must not ruin."""
    text = (files("ontopic") / "data" / "general_text.txt").read_text(encoding="utf-8")
    parts = [language_model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in text.split("\n\n")]
    rows = [(ids, 1) for ids in parts if len(ids) > 1]
    weights = [len(ids) - 1 for ids, _ in rows]
    return math.exp(float(np.average(_mean_nll(language_model, rows), weights=weights)))


@torch.inference_mode()
def _mean_nll(
    language_model: LanguageModel, rows: Sequence[tuple[list[int], int]], *, advance: Advance | None = None
) -> list[float]:
    """For each row of token ids, the mean negative log-likelihood of the tokens from the given place on, in nats."""
    model = language_model.model
    found = [0.0] * len(rows)
    for batch in packed_by_tokens([len(ids) for ids, _ in rows], _BATCH_TOKENS):
        longest = len(rows[batch[-1]][0])
        # Padding stands at the end, where no token sees it.
        ids = torch.tensor([rows[i][0] + [0] * (longest - len(rows[i][0])) for i in batch], device=model.device)
        kept = longest + 1 - min(rows[i][1] for i in batch)  # the places before the first wanted token say nothing
        # As indices, they are copied together; of a slice, frozen weights would be copied for each row in its place.
        places = torch.arange(longest - kept, longest, device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits  # (texts, kept, vocabulary)
        for row, i in enumerate(batch):
            tokens, first = rows[i]
            wanted = ids[row, first : len(tokens)]
            said = logits[row, first - 1 - (longest - kept) : len(tokens) - 1 - (longest - kept)].float()
            found[i] = float(torch.nn.functional.cross_entropy(said, wanted))
        if advance:
            advance(len(batch))
    return found
