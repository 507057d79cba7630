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
from trl.experimental.orpo import ORPOTrainer

from ontopic.errors import UserError
from ontopic.models.batches import batches_of_like_length
from ontopic.training.branch_attention import BY_BRANCH, Branches
from ontopic.training.fused_lora import fuse
from ontopic.training.log_probs import LogProbs, Wanted
from ontopic.training.needed_pairs import Needed

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
        needed: which pairs of the batch get a backward pass; a share below 1 leaves the loss as it is.
        stock_likelihood: compute TRL's likelihood term instead; then the loss is that of ``ORPOTrainer``.

    Raises:
        UserError: the output layer is to be trained, which ``LogProbs`` gives no gradient, or the model changes what
            it gives.
    """

    stock_likelihood = False

    def __init__(self, *args: Any, gradient_share: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needed = Needed(gradient_share)
        causal = self.accelerator.unwrap_model(self.model).get_base_model()
        self._by_branch = bool(getattr(causal, "_supports_attention_backend", False))
        if self._by_branch:
            causal.set_attn_implementation(BY_BRANCH)
        if any(parameter.requires_grad for parameter in causal.get_output_embeddings().parameters()):
            raise UserError("training.lora_modules: the model's output layer can't be trained; leave it out")
        if changed := [name for name in _AFTER_THE_OUTPUT_LAYER if getattr(causal.config, name, None)]:
            raise UserError(f"{causal.config.model_type}: a model with {changed[0]} can't be trained; take another")
        if not self.is_fsdp_enabled:  # which gathers a layer's weights as the layer is called
            fuse(causal, self.needed)

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
    def _output_layer_gives_log_probs(self, packed: _Packed) -> Iterator[None]:
        """Meanwhile the output layer returns what ``LogProbs`` does for the labelled tokens in place of logits.

        So the whole model is called, as DDP and FSDP need it, and no logits pass out of it.
        """
        head = self._output_layer()

        def log_probs(states: Tensor) -> Tensor:
            # Beside weights of 4 bits norms are in float32, and so is what Llama's gives.
            states = states[0].to(head.weight.dtype)
            wanted = Wanted(packed.target, packed.pair, self.needed)
            return torch.stack(LogProbs.apply(states, head.weight, getattr(head, "bias", None), wanted))

        head.forward = log_probs
        try:
            yield
        finally:
            del head.forward

    def _branches(self, packed: _Packed) -> Branches:
        return Branches.of(packed.allowed[0, 0], packed.places, shared=packed.shared, needed=self.needed)

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
        self.needed.begin(packed.places, packed.shared)
        with self._output_layer_gives_log_probs(packed):
            log_probs, means = model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                attention_mask=packed.allowed,
                logits_to_keep=packed.source,
                use_cache=False,
                **({"branches": self._branches(packed)} if self._by_branch else {}),
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
    # Each pair keeps a token of its own at least.
    beginnings = (prompt[:-1] for prompt in prompts)
    shared = len(list(takewhile(lambda tokens: len(set(tokens)) == 1, zip(*beginnings, strict=False))))
    ids, positions = prompts[0][:shared], list(range(shared))
    pair_of, kind_of = [-1] * shared, [_PROMPT] * shared
    sizes = [0] * len(rows)
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
            read = tokens if part == _PROMPT else tokens[:-1]  # nothing is predicted from an answer's last token
            ids += read
            positions += range(start, start + len(read))
            pair_of += [i] * len(read)
            kind_of += [part] * len(read)
            sizes[i] += len(read)
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
    starts = [shared + sum(sizes[:i]) for i in range(len(sizes))]
    places = torch.tensor(
        [[*range(start, start + size)] + [-1] * (max(sizes) - size) for start, size in zip(starts, sizes, strict=True)],
        device=device,
    )
    listed = {"ids": [ids], "positions": [positions], "source": source, "target": target, "pair": pair, "kind": kind}
    tensors = {name: torch.tensor(values, device=device) for name, values in listed.items()}
    return _Packed(**tensors, allowed=allowed[None, None].to(device), pairs=len(rows), shared=shared, places=places)
