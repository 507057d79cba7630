"""TRL's ORPO trainer on one packed sequence a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from trl.experimental.orpo import ORPOTrainer

from ontopic.errors import UserError

# What some models do with logits before they return them (Gemma 2, Cohere).
_AFTER_THE_OUTPUT_LAYER = ("final_logit_softcapping", "logit_scale")


class PackedORPOTrainer(ORPOTrainer):
    """ORPO (Hong et al. 2024, arXiv 2403.07691) on fewer tokens than ``ORPOTrainer``.

    The stock trainer runs prompt + chosen and prompt + rejected as two padded sequences and computes logits for every
    position. Here a batch is one sequence without padding, a tree: what all prompts begin with, then for each pair the
    rest of its prompt, its chosen and its rejected answer, each of which attends to its own branch only. Logits are
    computed where a label is, some tokens at a time, and never kept.

    The likelihood term is the paper's: that of the chosen answer given the prompt, averaged over its tokens, then over
    pairs. TRL's covers the prompt too and averages over all tokens of a batch, which teaches a small model to write
    users' questions and lets a long answer outweigh a short refusal.

    Attributes:
        stock_likelihood: compute TRL's likelihood term instead; then the loss is that of ``ORPOTrainer``.

    Raises:
        UserError: the output layer is to be trained, which ``_LogProbs`` gives no gradient, or the model changes what
            it gives.
    """

    stock_likelihood = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if any(parameter.requires_grad for parameter in self._output_layer().parameters()):
            raise UserError("training.lora_modules: the model's output layer can't be trained; leave it out")
        model_config = self.accelerator.unwrap_model(self.model).config
        if changed := [name for name in _AFTER_THE_OUTPUT_LAYER if getattr(model_config, name, None)]:
            raise UserError(f"{model_config.model_type}: a model with {changed[0]} can't be trained; take another")

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """As the stock trainer, without the end-of-text token that it puts behind a rejected or a cut answer.

        Rejected answers are cut: the model would learn that no answer ends in mid-sentence, which it knows, and
        nothing of what sets the two answers apart.
        """
        row = super().tokenize_row(feature, model)
        for answer in ("rejected", "chosen")[: 1 + feature.get("cut", False)]:
            for part in ("input_ids", "attention_mask", "labels"):
                row[f"{answer}_{part}"] = row[f"{answer}_{part}"][:-1]
        return row

    @contextmanager
    def _output_layer_gives_log_probs(self, target: Tensor) -> Iterator[None]:
        """Meanwhile the output layer returns what ``_LogProbs`` does for these tokens in place of logits.

        So the whole model is called, as DDP and FSDP need it, and no logits pass out of it.
        """
        head = self._output_layer()

        def log_probs(states: Tensor) -> Tensor:
            return torch.stack(_LogProbs.apply(states[0], head.weight, getattr(head, "bias", None), target))

        head.forward = log_probs
        try:
            yield
        finally:
            del head.forward

    def _output_layer(self) -> Any:
        return self.accelerator.unwrap_model(self.model).get_base_model().get_output_embeddings()

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> Any:
        """Log-probabilities of the answers of a batch of pairs, averaged over tokens.

        Returns:
            As the stock trainer: chosen and rejected log-probabilities, each of shape (pairs,), the means of the logits
            at the chosen and at the rejected tokens, each of shape (tokens,), and the negative log-likelihood.
        """
        device = self.accelerator.device
        packed = _pack(batch, self.stock_likelihood, device)
        with self._output_layer_gives_log_probs(packed.target):
            log_probs, means = model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                attention_mask=packed.allowed,
                logits_to_keep=packed.source,
                use_cache=False,
            ).logits

        def mean_by_pair(of: int) -> Tensor:
            here = packed.kind == of
            total = torch.zeros(packed.pairs, device=device).index_add(0, packed.pair[here], log_probs[here])
            return total / torch.bincount(packed.pair[here], minlength=packed.pairs)

        chosen, rejected = mean_by_pair(_CHOSEN), mean_by_pair(_REJECTED)
        likelihood = -log_probs[packed.kind != _REJECTED].mean() if self.stock_likelihood else -chosen.mean()
        return chosen, rejected, means[packed.kind == _CHOSEN], means[packed.kind == _REJECTED], likelihood


class _LogProbs(torch.autograd.Function):
    """Log-probabilities of target tokens and the means of their logits, without keeping logits for the way back.

    A token's log-probability depends on its own state only, so its gradient, the target's output embedding less the
    expected one, is found on the way forth. The output embeddings get no gradient: under LoRA they are frozen.
    """

    CHUNK = 256  # tokens whose logits are there at a time

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, means, slopes = [], [], []
        for state, wanted in zip(states.split(_LogProbs.CHUNK), target.split(_LogProbs.CHUNK), strict=True):
            logits = linear(state, head, bias).float()
            means.append(logits.mean(1))
            whole = logits.logsumexp(1, keepdim=True)
            log_probs.append((logits.gather(1, wanted.unsqueeze(1)) - whole).squeeze(1))
            if states.requires_grad:
                probabilities = logits.sub_(whole).exp_()
                slopes.append(head[wanted] - probabilities.to(head.dtype) @ head)
        ctx.save_for_backward(*slopes)
        ctx.mark_non_differentiable(mean := torch.cat(means))
        return torch.cat(log_probs), mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        slopes = torch.cat(ctx.saved_tensors)
        return gradients[0].unsqueeze(1).to(slopes.dtype) * slopes, None, None, None


_PROMPT, _CHOSEN, _REJECTED = 0, 1, 2


@dataclass(frozen=True)
class _Packed:
    """A batch as one sequence.

    Attributes:
        ids, positions: token ids and positions, each of shape (1, tokens).
        allowed: which keys each query sees, (1, 1, tokens, tokens).
        source: for every labelled token, the index it is predicted from; ``target``: the token; ``pair``: its pair;
            ``kind``: whether it belongs to a prompt, a chosen or a rejected answer.
        pairs: how many.
    """

    ids: Tensor
    positions: Tensor
    allowed: Tensor
    source: Tensor
    target: Tensor
    pair: Tensor
    kind: Tensor
    pairs: int


def _pack(batch: dict[str, Any], with_prompts: bool, device: torch.device) -> _Packed:
    """Pack a collated batch; ``with_prompts``: prompts are labelled too, their first tokens excepted."""
    rows = []
    for i in range(len(batch["chosen_input_ids"])):
        chosen = batch["chosen_input_ids"][i][batch["chosen_attention_mask"][i].bool()].tolist()
        answers = [
            batch[f"{name}_labels"][i][batch[f"{name}_labels"][i] != -100].tolist() for name in ("chosen", "rejected")
        ]
        rows.append((chosen[: len(chosen) - len(answers[0])], *answers))
    prompts = [prompt for prompt, _, _ in rows]
    shared = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))))
    ids, positions = prompts[0][:shared], list(range(shared))
    pair_of, kind_of = [-1] * shared, [_PROMPT] * shared
    source: list[int] = []
    target: list[int] = []
    pair: list[int] = []
    kind: list[int] = []
    for i, row in enumerate(rows):
        last = shared - 1
        if with_prompts:
            source += range(shared - 1)
            target += row[0][1:shared]
            pair += [i] * (shared - 1)
            kind += [_PROMPT] * (shared - 1)
        for part, tokens in enumerate((row[_PROMPT][shared:], row[_CHOSEN], row[_REJECTED])):
            first, start = len(ids), shared if part == _PROMPT else len(row[_PROMPT])
            ids += tokens
            positions += range(start, start + len(tokens))
            pair_of += [i] * len(tokens)
            kind_of += [part] * len(tokens)
            if part != _PROMPT or with_prompts:
                before = [last, *range(first, first + len(tokens) - 1)][: len(tokens)]
                skipped = last < 0  # nothing comes before a prompt's first token
                source += before[skipped:]
                target += tokens[skipped:]
                pair += [i] * len(before[skipped:])
                kind += [part] * len(before[skipped:])
            if part == _PROMPT and tokens:
                last = len(ids) - 1  # both answers follow the prompt
    owner, branch = torch.tensor(pair_of), torch.tensor(kind_of)
    earlier = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    above = (branch == _PROMPT) | (branch.unsqueeze(1) == branch)
    allowed = earlier & ((owner == -1) | ((owner.unsqueeze(1) == owner) & above))
    listed = {"ids": [ids], "positions": [positions], "source": source, "target": target, "pair": pair, "kind": kind}
    tensors = {name: torch.tensor(values, device=device) for name, values in listed.items()}
    return _Packed(**tensors, allowed=allowed[None, None].to(device), pairs=len(rows))
