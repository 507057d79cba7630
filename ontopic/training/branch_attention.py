"""Attention on a packed sequence, pair by pair: what no pair sees of another is not computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ontopic.training.needed_pairs import Needed

BY_BRANCH = "ontopic_by_branch"
_AT_A_TIME = 6  # pairs of like size, padded to the longest of them


@dataclass(frozen=True)
class _Group:
    """Pairs of like size as rows of a padded batch.

    Attributes:
        pairs: which, (rows,); None where it is what all pairs share, as one row.
        places: of each row's own tokens, (rows, longest), with padding.
        kept: which of these, flat, are no padding, and ``own``: their places, each of shape (tokens,).
        shared: tokens at the sequence's beginning that each row sees too.
        unseen: what keeps a token from the keys it does not see, of the shared ones and then the row's,
            (rows, 1, 1, longest, shared + longest).
    """

    pairs: Tensor | None
    places: Tensor
    kept: Tensor
    own: Tensor
    shared: int
    unseen: Tensor

    def needed(self, needed: Needed) -> tuple[_Group | None, Tensor | None]:
        """The rows that get a gradient, None where there are none; and which these are, None where all are."""
        if needed.pairs is None or self.pairs is None:
            return self, None
        rows = needed.pairs[self.pairs].nonzero().squeeze(1)
        if not len(rows):
            return None, None
        valid = torch.zeros_like(self.places, dtype=torch.bool)
        valid.view(-1)[self.kept] = True
        places = self.places[rows]
        kept = valid[rows].flatten().nonzero().squeeze(1)
        return _Group(self.pairs[rows], places, kept, places.flatten()[kept], self.shared, self.unseen[rows]), rows

    def rows(self, tokens: Tensor) -> Tensor:
        """(tokens, heads, grouped, size) as (rows * heads, grouped * longest, size); what pads them means nothing."""
        taken = tokens.index_select(0, self.places.flatten()).unflatten(0, self.places.shape)
        return taken.permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)

    def with_shared(self, tokens: Tensor) -> Tensor:
        """(tokens, heads, 1, size) as (rows * heads, shared + longest, size)."""
        own = self.rows(tokens)
        beginning = tokens[: self.shared, :, 0].transpose(0, 1).expand(len(self.places), -1, -1, -1).flatten(0, 1)
        return torch.cat([beginning, own], 1)

    def tokens(self, rows: Tensor, like: Tensor) -> Tensor:
        """The opposite of ``rows`` for the tokens in ``own``, (tokens, heads, grouped, size)."""
        heads, grouped, size = like.shape[1:]
        taken = rows.view(len(self.places), heads, grouped, -1, size).permute(0, 3, 1, 2, 4)
        return taken.flatten(0, 1).index_select(0, self.kept)

    def padded(self, tokens: Tensor) -> Tensor:
        """As ``rows``, with zeros for what pads them."""
        rows = tokens.new_zeros(self.places.numel(), *tokens.shape[1:])
        rows.index_copy_(0, self.kept, tokens.index_select(0, self.own))
        return rows.unflatten(0, self.places.shape).permute(0, 2, 3, 1, 4).flatten(2, 3).flatten(0, 1)


@dataclass(frozen=True)
class Branches:
    """A packed sequence's tokens, the shared ones and each pair's, each in one group.

    Attributes:
        needed: which pairs get a gradient.
    """

    groups: Sequence[_Group]
    needed: Needed

    @cached_property
    def with_gradient(self) -> list[tuple[_Group | None, Tensor | None]]:
        """Of each group what gets a gradient; known once the backward pass has begun."""
        return [group.needed(self.needed) for group in self.groups]

    @classmethod
    def of(cls, allowed: Tensor, places: Tensor, *, shared: int, needed: Needed) -> Branches:
        """From which keys each query sees.

        Args:
            allowed: (tokens, tokens).
            places: of each pair's own tokens, (pairs, longest), padded with -1.
            shared: tokens at the beginning that all pairs see.
        """
        sizes = (places >= 0).sum(1)
        by_size = sizes.argsort(descending=True).split(_AT_A_TIME)
        groups = [
            _group(allowed, places[pairs, : int(sizes[pairs[0]])], pairs=pairs, shared=shared) for pairs in by_size
        ]
        if shared:
            beginning = torch.arange(shared, device=places.device).unsqueeze(0)
            groups.append(_group(allowed, beginning, pairs=None, shared=0))
        return cls(groups, needed)


def _group(allowed: Tensor, places: Tensor, *, pairs: Tensor | None, shared: int) -> _Group:
    valid = places >= 0  # (rows, longest)
    kept = valid.flatten().nonzero().squeeze(1)
    places = places.clamp(min=0)
    own = allowed[places.unsqueeze(2), places.unsqueeze(1)] & valid.unsqueeze(1)  # (rows, longest, longest)
    first = torch.zeros_like(own)
    first[:, :, 0] = True  # what pads a row sees something, lest its softmax be of nothing
    own = torch.where(valid.unsqueeze(2), own, first)
    seen = torch.cat([own.new_ones(*own.shape[:2], shared), own], 2)  # (rows, longest, shared + longest)
    # Minus infinity where a key is not seen, in a type that makes no other one wider.
    unseen = torch.zeros(seen.shape, dtype=torch.bfloat16, device=seen.device).masked_fill_(~seen, -torch.inf)
    return _Group(pairs, places, kept, places.flatten()[kept], shared, unseen[:, None, None])


class _Attention(torch.autograd.Function):
    """Plain attention in each group: on squares so small, PyTorch's fused one takes three times as long backward."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float, branches: Branches) -> Tensor:
        """From (tokens, heads of keys, grouped, size): ``grouped`` queries share a head of keys, and 1 is of those."""
        out = torch.empty_like(query)
        query = query * scaling
        kept: list[Tensor] = []
        for group in branches.groups:
            queries, keys, values = group.rows(query), group.with_shared(key), group.with_shared(value)
            scores = torch.bmm(queries, keys.transpose(1, 2))
            scores.view(len(group.places), key.shape[1], query.shape[2], *group.unseen.shape[-2:]).add_(group.unseen)
            shares = scores.softmax(2)  # (rows * heads, grouped * longest, shared + longest)
            out.index_copy_(0, group.own, group.tokens(torch.bmm(shares, values), query))
            kept += [queries, keys, values, shares]
        ctx.save_for_backward(*kept)
        ctx.branches, ctx.scaling, ctx.shapes = branches, scaling, (query.shape, key.shape)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        of_query, of_key, of_value = (gradients[0].new_zeros(ctx.shapes[i]) for i in (0, 1, 1))
        saved = iter(ctx.saved_tensors)
        heads = ctx.shapes[1][1]
        for (some, rows), *parts in zip(ctx.branches.with_gradient, *[saved] * 4, strict=True):
            if some is None:
                continue
            if rows is not None:
                parts = [part.unflatten(0, (-1, heads)).index_select(0, rows).flatten(0, 1) for part in parts]
            shared = some.shared
            queries, keys, values, shares = parts
            gradient = some.padded(gradients[0])  # (rows * heads, grouped * longest, size)
            below = torch.bmm(gradient, values.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(below, shares, 2, shares.dtype)
            of_query.index_copy_(0, some.own, some.tokens(torch.bmm(of_scores, keys), of_query).mul_(ctx.scaling))
            for whole, left, right in ((of_key, of_scores, queries), (of_value, shares, gradient)):
                each = torch.bmm(left.transpose(1, 2), right).unflatten(0, (-1, heads))
                if shared:
                    whole[:shared, :, 0] += each[:, :, :shared].sum(0).transpose(0, 1)
                own = some.tokens(each[:, :, shared:].flatten(0, 1), whole)
                # What all pairs share is a group too, and adds to what pairs gave it.
                whole.index_add_(0, some.own, own)
        return of_query, of_key, of_value, None, None


def _attention_by_branch(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention on one packed sequence, (1, heads, tokens, size); without ``branches``, PyTorch's."""
    branches: Branches | None = kwargs.pop("branches", None)
    if branches is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    heads, device = key.shape[1], query.device.type
    # Beside weights of 4 bits states are in float32 here, and autocast would narrow some operations and widen others.
    narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    # (tokens, heads of keys, grouped, size): a token's heads side by side, copied and added up in one go
    states = (each[0].to(narrow).transpose(0, 1).unflatten(1, (heads, -1)) for each in (query, key, value))
    with torch.autocast(device, enabled=False):
        out = _Attention.apply(*states, kwargs["scaling"], branches)
    return out.flatten(1, 2).unsqueeze(0), None  # (1, tokens, heads, size)


AttentionInterface.register(BY_BRANCH, _attention_by_branch)
AttentionMaskInterface.register(BY_BRANCH, sdpa_mask)
