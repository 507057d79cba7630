"""The next token of an answer: sampled from the logits, and its log-probability."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ontopic.models.answer import Sampling, TokenLogprob

LEAST_TEMPERATURE = 1e-6  # dividing by less overflows; the likeliest token has all the probability by then


def sampled(logits: torch.Tensor, sampling: Sampling, *, generator: torch.Generator) -> int:
    """A token, sampled from logits of shape (vocabulary,)."""
    probabilities = torch.softmax(logits.float().cpu() / max(sampling.temperature, LEAST_TEMPERATURE), -1)
    if sampling.top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        keep = ordered.cumsum(0) - ordered < sampling.top_p
        keep[0] = True
        return int(tokens[torch.multinomial(ordered * keep, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))


def token_logprob(logits: torch.Tensor, token: int, *, top: int, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """Log-probability of ``token`` by logits of shape (vocabulary,), and the ``top`` likeliest tokens with theirs."""
    logprobs = torch.log_softmax(logits.float(), -1)
    best = logprobs.topk(top) if top else None
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenLogprob(
        token_bytes(token),
        float(logprobs[token]),
        tuple((token_bytes(i), value) for i, value in likeliest),
    )
