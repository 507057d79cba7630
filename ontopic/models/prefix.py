"""The beginning that prompts share, which is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

_LEAST_PREFIX, _MOST_PREFIX = 16, 2048


class SharedPrefix:
    """The beginning that the last prompts shared, above all the system prompt: it is read once."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._last: list[int] = []

    def cache_for(self, prompts: Sequence[Sequence[int]]) -> tuple[DynamicCache, int]:
        """A cache with a row a prompt that holds what is known of all of them, and how many tokens that is."""
        cache = DynamicCache()
        known = min(min(_shared(self._ids, ids), len(ids) - 1) for ids in prompts)
        if known < _LEAST_PREFIX:
            return cache, 0
        for layer, (keys, values) in enumerate(self._layers):
            rows = (len(prompts), -1, -1, -1)
            cache.update(keys[:, :, :known].expand(rows), values[:, :, :known].expand(rows), layer)
        return cache, known

    def learn(self, ids: list[int], cache: DynamicCache) -> None:
        """Keep what a prompt shares with the one before, where that is more than is kept.

        Args:
            ids: the prompt's tokens.
            cache: holds its keys and values in the first row.
        """
        shared = min(_shared(self._last, ids), _MOST_PREFIX)
        self._last = ids
        if shared >= _LEAST_PREFIX and shared > _shared(self._ids, ids):
            self._ids = ids[:shared]
            layers: Sequence[Any] = cache.layers
            self._layers = [
                (layer.keys[:1, :, :shared].clone(), layer.values[:1, :, :shared].clone()) for layer in layers
            ]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the beginning that two lists share."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
