"""Prompts read into a cache of keys and values, some together and chunk by chunk, before their answers begin."""

from __future__ import annotations

from typing import Any

import torch

from ontopic.models.answer import Generation
from ontopic.models.prefix import SharedPrefix

PREFILL_TOKENS = 512  # read at most in one go, as the running answers wait for it


class PromptReading:
    """Prompts that are read together, up to what the prefix knows, then chunk by chunk.

    Args:
        tokens: read at most in one go.

    Attributes:
        cache: keys and values of the prompts, a row each, padded on the right.
        logits: of the token after each prompt, of shape (vocabulary,).
    """

    def __init__(self, generations: list[Generation], prefix: SharedPrefix, *, tokens: int = PREFILL_TOKENS) -> None:
        self.generations, self._tokens = generations, tokens
        self.logits: dict[int, torch.Tensor] = {}
        self._lengths = [len(each.ids) for each in generations]
        self.cache, self._done = prefix.cache_for([each.ids for each in generations])
        self._ids = torch.zeros(len(generations), max(self._lengths), dtype=torch.long)
        for row, each in enumerate(generations):
            self._ids[row, : len(each.ids)] = torch.tensor(each.ids)

    def read(self, model: Any) -> bool:
        """Run the forward pass over the next chunk; returns whether it was the last.

        Padding is at the end, where no token sees it.
        """
        start = self._done
        end = min(start + max(1, self._tokens // len(self._ids)), self._ids.shape[1])
        ends_here = {row: length - 1 - start for row, length in enumerate(self._lengths) if start < length <= end}
        places = sorted(set(ends_here.values())) or [end - start - 1]
        logits = model(
            input_ids=self._ids[:, start:end].to(model.device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=torch.tensor(places, device=model.device),
        ).logits
        for row, place in ends_here.items():
            self.logits[row] = logits[row, places.index(place)]
        self._done = end
        return end == self._ids.shape[1]
