"""Keys and values of the answers under way, a slot each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin


class SlotCache(Cache):
    """Keys and values of the running answers: one tensor a layer, a slot a row, each filled up to its own length."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._slots: list[_SlotLayer] = self.layers  # type: ignore[assignment]

    def add(self, slot: int, cache: DynamicCache, *, row: int, length: int, room: int) -> None:
        """Take a row that was read into ``slot``, the first free one; each slot has ``room`` places at least."""
        layers: Sequence[Any] = cache.layers
        for i, read in enumerate(layers):
            if i == len(self._slots):
                self._slots.append(_SlotLayer())
            layer = self._slots[i]
            layer.keys = _grown(layer.keys, read.keys, slot=slot, room=room)
            layer.values = _grown(layer.values, read.values, slot=slot, room=room)
            layer.keys[slot, :, :length] = read.keys[row, :, :length]
            layer.values[slot, :, :length] = read.values[row, :, :length]

    def copy(self, source: int, target: int, *, length: int) -> None:
        """Copy a slot's first ``length`` places."""
        for layer in self._slots:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def writing_at(self, lengths: torch.Tensor, end: int) -> SlotCache:
        """Itself, set to write the next token of row i at ``lengths[i]``, and to give ``end`` places to read."""
        for layer in self._slots:
            layer.lengths, layer.rows, layer.end = lengths, torch.arange(len(lengths), device=lengths.device), end
        return self


class _SlotLayer(CacheLayerMixin):
    """One layer's keys and values, each of shape (slots, heads, places, head size).

    Attributes:
        lengths: places that each row has filled, of shape (rows,).
        rows: 0 to the number of rows, of shape (rows,).
        end: places that are read, from the first.
    """

    keys: Any
    values: Any
    lengths: torch.Tensor
    rows: torch.Tensor
    end: int

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise NotImplementedError("slots are filled from prompts that were read")

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[self.rows, :, self.lengths] = key_states[:, :, 0]
        self.values[self.rows, :, self.lengths] = value_states[:, :, 0]
        n = len(self.rows)
        return self.keys[:n, :, : self.end], self.values[:n, :, : self.end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.end, 0

    def get_seq_length(self) -> int:
        return self.end - 1

    def get_max_length(self) -> int:
        return -1


def _grown(states: torch.Tensor | None, read: torch.Tensor, *, slot: int, room: int) -> torch.Tensor:
    """``states`` with space for this slot and so many places a slot."""
    if states is not None and slot < states.shape[0] and room <= states.shape[2]:
        return states
    slots, places = 1 << slot.bit_length(), -(-room // 128) * 128
    grown = read.new_zeros(slots, read.shape[1], places, read.shape[3])
    if states is not None and slot:
        kept = min(places, states.shape[2])
        grown[:slot, :, :kept] = states[:slot, :, :kept]
    return grown
