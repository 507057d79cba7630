"""TRL's ORPO trainer on one packed sequence a batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.experimental.orpo import ORPOTrainer

from ontopic.errors import UserError
from ontopic.models.batches import batches_of_like_length

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
        causal = self.accelerator.unwrap_model(self.model).get_base_model()
        self._by_branch = bool(getattr(causal, "_supports_attention_backend", False))
        if self._by_branch:
            causal.set_attn_implementation(_BY_BRANCH)
        if any(parameter.requires_grad for parameter in causal.get_output_embeddings().parameters()):
            raise UserError("training.lora_modules: the model's output layer can't be trained; leave it out")
        if changed := [name for name in _AFTER_THE_OUTPUT_LAYER if getattr(causal.config, name, None)]:
            raise UserError(f"{causal.config.model_type}: a model with {changed[0]} can't be trained; take another")

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

    @property
    def pairs_a_step(self) -> int:
        """Of all processes together."""
        return int(self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Each epoch anew, batches of like length: by their prompts, as a batch should hold long and short answers."""
        dataset: Any = train_dataset or self.train_dataset
        prompts = list(map(len, dataset["prompt_input_ids"]))
        size = self.pairs_a_step
        return _LikeLength(
            prompts, size, seed=lambda: self.args.seed + self.state.global_step // -(-len(prompts) // size)
        )

    @contextmanager
    def _output_layer_gives_log_probs(self, target: Tensor) -> Iterator[None]:
        """Meanwhile the output layer returns what ``_LogProbs`` does for these tokens in place of logits.

        So the whole model is called, as DDP and FSDP need it, and no logits pass out of it.
        """
        head = self._output_layer()

        def log_probs(states: Tensor) -> Tensor:
            # Beside weights of 4 bits norms are in float32, and so is what Llama's gives.
            states = states[0].to(head.weight.dtype)
            return torch.stack(_LogProbs.apply(states, head.weight, getattr(head, "bias", None), target))

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
        packed = _pack(batch, with_prompts=self.stock_likelihood, device=device)
        with self._output_layer_gives_log_probs(packed.target):
            log_probs, means = model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                attention_mask=packed.allowed,
                logits_to_keep=packed.source,
                use_cache=False,
                **({"branches": packed.branches()} if self._by_branch else {}),
            ).logits

        def mean_by_pair(of: int) -> Tensor:
            here = packed.kind == of  # (labelled tokens,)
            total = torch.zeros(packed.pairs, device=device).index_add(0, packed.pair[here], log_probs[here])
            return total / torch.bincount(packed.pair[here], minlength=packed.pairs)

        chosen, rejected = mean_by_pair(_CHOSEN), mean_by_pair(_REJECTED)
        likelihood = -log_probs[packed.kind != _REJECTED].mean() if self.stock_likelihood else -chosen.mean()
        return chosen, rejected, means[packed.kind == _CHOSEN], means[packed.kind == _REJECTED], likelihood


class _LikeLength(Sampler[int]):
    """Indices of ``lengths``, batch after batch of ``size``, in an order that depends on the seed alone."""

    def __init__(self, lengths: Sequence[int], size: int, *, seed: Callable[[], int]) -> None:
        self._lengths, self._size, self._seed = lengths, size, seed

    def __iter__(self) -> Iterator[int]:
        batches = batches_of_like_length(self._lengths, self._size, chance=random.Random(self._seed()), at_a_time=32)
        batches.sort(key=len, reverse=True)  # a smaller one stands last, lest it shift those after it
        return chain.from_iterable(batches)

    def __len__(self) -> int:
        return len(self._lengths)


class _LogProbs(torch.autograd.Function):
    """Log-probabilities of target tokens and the means of their logits, keeping no logits for the backward pass.

    A token's log-probability depends on its own state only, so its gradient, the target's output embedding less the
    expected one, is found in the forward pass. The output embeddings get no gradient: under LoRA they are frozen.
    """

    CHUNK = 64  # tokens whose logits are there at a time

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, bias: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, means, slopes = [], [], []
        # One pair of buffers for all chunks: memory of this size is slow to get.
        product = head.new_empty(min(_LogProbs.CHUNK, len(states)), len(head))
        logits = torch.empty_like(product, dtype=torch.float32)
        for state, wanted in zip(states.split(_LogProbs.CHUNK), target.split(_LogProbs.CHUNK), strict=True):
            narrow, every = product[: len(state)], logits[: len(state)]  # (chunk, vocabulary)
            every.copy_(torch.mm(state, head.T, out=narrow))  # (chunk, size) by (size, vocabulary)
            if bias is not None:
                every += bias
            means.append(every.mean(1))
            top = every.amax(1, keepdim=True)  # (chunk, 1), as are the next two
            of_wanted = every.gather(1, wanted.unsqueeze(1)) - top
            total = every.sub_(top).exp_().sum(1, keepdim=True)
            log_probs.append((of_wanted - total.log()).squeeze(1))
            if states.requires_grad:
                slopes.append(head[wanted] - (narrow.copy_(every) @ head) / total.to(head.dtype))  # (chunk, size)
        ctx.save_for_backward(*slopes)
        ctx.mark_non_differentiable(mean := torch.cat(means))
        return torch.cat(log_probs), mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        slopes = torch.cat(ctx.saved_tensors)  # (tokens, size)
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
        shared: tokens that all prompts begin with; ``places``: those of each pair, (pairs, longest), padded with -1.
    """

    ids: Tensor
    positions: Tensor
    allowed: Tensor
    source: Tensor
    target: Tensor
    pair: Tensor
    kind: Tensor
    pairs: int
    shared: int
    places: Tensor

    def branches(self) -> _Branches:
        """Where each pair's tokens stand, for attention."""
        allowed, shared = self.allowed[0, 0], self.shared  # (tokens, tokens)
        valid = self.places >= 0  # (pairs, longest)
        places = self.places.clamp(min=0)
        own = allowed[places.unsqueeze(2), places.unsqueeze(1)] & valid.unsqueeze(1)  # (pairs, longest, longest)
        first = torch.zeros_like(own)
        first[:, :, 0] = True  # what pads a row sees something, lest its softmax be of nothing
        own = torch.where(valid.unsqueeze(2), own, first)
        seen = torch.cat([own.new_ones(*own.shape[:2], shared), own], 2)  # (pairs, longest, shared + longest)
        kept = valid.flatten().nonzero().squeeze(1)  # (tokens - shared,)
        earlier = own.new_ones(shared, shared).tril()
        return _Branches(shared, places, kept, _unseen(seen)[:, None, None], _unseen(earlier))


@dataclass(frozen=True)
class _Branches:
    """The pairs of a packed sequence as rows of a padded batch.

    Attributes:
        shared: tokens at the beginning that all pairs see.
        places: of each pair's own tokens, (pairs, longest), with padding; ``kept``: which, flat, are no padding.
        unseen: what keeps a token from the keys it does not see, of the shared ones and then the pair's,
            (pairs, 1, 1, longest, shared + longest); ``unseen_of_shared``: the shared ones from each other.
    """

    shared: int
    places: Tensor
    kept: Tensor
    unseen: Tensor
    unseen_of_shared: Tensor


_BY_BRANCH = "ontopic_by_branch"


def _attention_by_branch(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention on one packed sequence, pair by pair: what no pair sees of another is not computed.

    In place of one square of all tokens there is a small one a pair; the sequence is of shape (1, heads, tokens, size).
    Without ``branches``, PyTorch's attention.
    """
    branches: _Branches | None = kwargs.pop("branches", None)
    if branches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    shared, places = branches.shared, branches.places.flatten()
    heads, kept = key.shape[1], branches.kept
    grouped = query.shape[1] // heads  # queries that share a head of keys: they stand below each other

    def rows(states: Tensor) -> Tensor:
        # (tokens, heads * size): a token's heads side by side, copied and added up in one go
        tokens = states[0].transpose(0, 1).flatten(1)
        # (pairs, longest, heads of keys, grouped, size)
        by_pair = tokens.index_select(0, places).view(*branches.places.shape, heads, -1, states.shape[-1])
        return by_pair.permute(0, 2, 3, 1, 4).flatten(2, 3)  # (pairs, heads of keys, grouped * longest, size)

    def with_shared(states: Tensor) -> Tensor:
        # (pairs, heads of keys, shared + longest, size)
        return torch.cat([states[:, :, :shared].expand(len(branches.places), -1, -1, -1), rows(states)], 2)

    def tokens_first(attended: Tensor) -> Tensor:
        # (pairs * longest, heads, size)
        return attended.unflatten(2, (grouped, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)

    query = query * kwargs["scaling"]
    own = _attend(rows(query), with_shared(key), value=with_shared(value), unseen=branches.unseen)
    parts = [tokens_first(own).index_select(0, kept)]  # (tokens - shared, heads, size)
    if shared:
        # (1, heads of keys, grouped * shared, size)
        queries = query[:, :, :shared].unflatten(1, (heads, grouped)).flatten(2, 3)
        of_shared = _attend(queries, key[:, :, :shared], value=value[:, :, :shared], unseen=branches.unseen_of_shared)
        parts.insert(0, tokens_first(of_shared))
    return torch.cat(parts).unsqueeze(0), None  # (1, tokens, heads, size)


def _attend(query: Tensor, key: Tensor, *, value: Tensor, unseen: Tensor) -> Tensor:
    """Plain attention: on squares so small, the backward pass of PyTorch's fused one takes three times as long.

    Args:
        query: queries below each other that share a head of keys, (rows, heads of keys, queries, size).
        unseen: what is added to each query's scores, (tokens, keys) in the last places.
    """
    # (rows, heads of keys, grouped, tokens, keys)
    scores = (query @ key.transpose(2, 3)).unflatten(2, (-1, unseen.shape[-2])) + unseen
    return scores.softmax(4).flatten(2, 3).to(value.dtype) @ value


def _unseen(seen: Tensor) -> Tensor:
    """Minus infinity where a key is not seen, else 0; in a type that makes no other one wider."""
    return torch.zeros(seen.shape, dtype=torch.bfloat16, device=seen.device).masked_fill_(~seen, -torch.inf)


AttentionInterface.register(_BY_BRANCH, _attention_by_branch)
AttentionMaskInterface.register(_BY_BRANCH, sdpa_mask)


def _pack(batch: dict[str, Any], *, with_prompts: bool, device: torch.device) -> _Packed:
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
    owner, branch = torch.tensor(pair_of), torch.tensor(kind_of)  # (tokens,)
    earlier = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()  # (tokens, tokens), as are the next two
    above = (branch == _PROMPT) | (branch.unsqueeze(1) == branch)
    allowed = earlier & ((owner == -1) | ((owner.unsqueeze(1) == owner) & above))
    sizes = [sum(map(len, row)) - shared for row in rows]
    starts = [shared + sum(sizes[:i]) for i in range(len(sizes))]
    places = torch.tensor(
        [[*range(start, start + size)] + [-1] * (max(sizes) - size) for start, size in zip(starts, sizes, strict=True)],
        device=device,
    )
    listed = {"ids": [ids], "positions": [positions], "source": source, "target": target, "pair": pair, "kind": kind}
    tensors = {name: torch.tensor(values, device=device) for name, values in listed.items()}
    return _Packed(**tensors, allowed=allowed[None, None].to(device), pairs=len(rows), shared=shared, places=places)
