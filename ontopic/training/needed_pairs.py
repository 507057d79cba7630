"""Which pairs of a packed batch get a backward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Needed:
    """What of a packed batch the backward pass is of; the rest has no gradient, and costs no product.

    A pair whose gradient is small at the last states already has learned what it teaches. Pairs are taken from the
    largest on until they make up ``share`` of the sum of these gradients' norms (the bound that Katharopoulos and
    Fleuret 2018, arXiv 1803.00942, sample by); the others cost a forward pass only.

    Attributes:
        share: 1 takes all pairs.
        pairs: which are taken, (pairs,), true or false; ``tokens``: theirs and those that all pairs share. None: all.
    """

    share: float = 1.0
    pairs: Tensor | None = None
    tokens: Tensor | None = None

    def __post_init__(self) -> None:
        self._places, self._shared = torch.empty(0, 0, dtype=torch.long), 0

    def begin(self, places: Tensor, shared: int) -> None:
        """Take a new batch, all of which is needed until ``choose``.

        Args:
            places: of each pair's own tokens, (pairs, longest), padded with -1.
            shared: tokens at the beginning that all pairs see.
        """
        self.pairs = self.tokens = None
        self._places, self._shared = places, shared

    def choose(self, slopes: Tensor, pair: Tensor) -> None:
        """Set to zero what belongs to the pairs that are not taken.

        Args:
            slopes: the loss's gradient at the states that labelled tokens are predicted from, (labelled, size).
            pair: that each is of, (labelled,).
        """
        if self.share >= 1:
            return
        squares = slopes.float().square().sum(1)  # (labelled,)
        norms = squares.new_zeros(len(self._places)).index_add_(0, pair, squares).sqrt_()  # (pairs,)
        largest, order = norms.sort(descending=True)
        before = largest.cumsum(0) - largest
        taken = torch.zeros_like(norms, dtype=torch.bool)
        taken[order] = before < self.share * largest.sum()
        own = self._places[taken]
        self.pairs = taken
        self.tokens = torch.cat([torch.arange(self._shared, device=own.device), own[own >= 0]])
        slopes[~taken[pair]] = 0

    def of(self, states: Tensor) -> Tensor:
        """The rows that are needed, of (tokens, size)."""
        return states if self.tokens is None else states.index_select(0, self.tokens)

    def whole(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Needed rows among zeros, in the shape that all tokens have."""
        if self.tokens is None:
            return rows.view(shape)
        every = rows.new_zeros(shape)
        every.view(-1, shape[-1]).index_copy_(0, self.tokens, rows)
        return every
