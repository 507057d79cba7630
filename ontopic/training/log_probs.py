"""Log-probabilities of tokens without their logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ontopic.training.needed_pairs import Needed


@dataclass(frozen=True)
class Wanted:
    """Tokens whose log-probabilities are wanted.

    Attributes:
        target: the tokens, and ``pair``: that each is of, each of shape (tokens,).
        needed: chooses the pairs that get a gradient.
    """

    target: Tensor
    pair: Tensor
    needed: Needed


class LogProbs(torch.autograd.Function):
    """Log-probabilities of target tokens and the means of their logits, keeping no logits for the backward pass.

    A token's log-probability depends on its own state only, so its gradient, the target's output embedding less the
    expected one, is found in the forward pass. The output embeddings get no gradient: under LoRA they are frozen.
    """

    CHUNK = 256  # tokens whose logits are there at a time; each chunk reads all output embeddings anew

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, bias: Tensor | None, wanted: Wanted) -> tuple[Tensor, Tensor]:
        log_probs, means, slopes = [], [], []
        # One pair of buffers for all chunks: memory of this size is slow to get.
        product = head.new_empty(min(LogProbs.CHUNK, len(states)), len(head))
        logits = torch.empty_like(product, dtype=torch.float32)
        for state, token in zip(states.split(LogProbs.CHUNK), wanted.target.split(LogProbs.CHUNK), strict=True):
            narrow, every = product[: len(state)], logits[: len(state)]  # (chunk, vocabulary)
            every.copy_(torch.mm(state, head.T, out=narrow))  # (chunk, size) by (size, vocabulary)
            if bias is not None:
                every += bias
            means.append(every.mean(1))
            top = every.amax(1, keepdim=True)  # (chunk, 1), as are the next two
            of_wanted = every.gather(1, token.unsqueeze(1)) - top
            total = every.sub_(top).exp_().sum(1, keepdim=True)
            log_probs.append((of_wanted - total.log()).squeeze(1))
            if states.requires_grad:
                slopes.append(head[token] - (narrow.copy_(every) @ head) / total.to(head.dtype))  # (chunk, size)
        ctx.save_for_backward(*slopes)
        ctx.wanted = wanted
        ctx.mark_non_differentiable(mean := torch.cat(means))
        return torch.cat(log_probs), mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        slopes = torch.cat(ctx.saved_tensors)  # (tokens, size)
        of_states = gradients[0].unsqueeze(1).to(slopes.dtype) * slopes
        ctx.wanted.needed.choose(of_states, ctx.wanted.pair)
        return of_states, None, None, None
