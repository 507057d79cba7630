"""The next token of an answer: sampled from the logits, and its log-probability."""

from __future__ import annotations

from typing import Any

import torch

from ontopic.models.answer import Sampling, TokenLogprob

_LEAST_TEMPERATURE = 1e-6  # dividing by less overflows; the likeliest token has all the probability by then


def sampled(logits: torch.Tensor, sampling: Sampling, *, generator: torch.Generator) -> int:
    """A token, sampled from logits of shape (vocabulary,)."""
    probabilities = torch.softmax(logits.float().cpu() / max(sampling.temperature, _LEAST_TEMPERATURE), -1)
    if sampling.top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        keep = ordered.cumsum(0) - ordered < sampling.top_p
        keep[0] = True
        return int(tokens[torch.multinomial(ordered * keep, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def token_logprob(logits: torch.Tensor, token: int, *, top: int, tokenizer: Any) -> TokenLogprob:
    """Log-probability of ``token`` by logits of shape (vocabulary,), and the ``top`` likeliest tokens with theirs."""
    logprobs = torch.log_softmax(logits.float(), -1)
    best = logprobs.topk(top) if top else None
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenLogprob(
        tokenizer.decode([token]),
        float(logprobs[token]),
        tuple((tokenizer.decode([i]), value) for i, value in likeliest),
    )
