"""The bytes that a token stands for, of which one may be half a character."""

from __future__ import annotations

import json
import re
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


class TokenBytes:
    """A tokenizer's tokens as bytes of UTF-8: those of an answer's tokens join to its text.

    Its decoder tells what stands for a byte: a character of GPT-2's alphabet, or, as in SentencePiece's vocabularies,
    ``<0xF0>`` beside texts with ``▁`` for a space.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = tokenizer.backend_tokenizer.decoder
        self._kinds = set(_kinds(json.loads(decoder.__getstate__()))) if decoder else set()
        self._added, self._n = frozenset(tokenizer.added_tokens_decoder), len(tokenizer)

    def __call__(self, token: int) -> bytes:
        """The bytes of a token; none of an id that the vocabulary does not have, as in rows that pad the weights."""
        text = self._tokenizer.convert_ids_to_tokens(token) if 0 <= token < self._n else None
        if text is None:
            return b""
        if token in self._added:
            return str(text).encode()
        if "ByteLevel" in self._kinds and all(character in _BYTES for character in text):
            return bytes(_BYTES[character] for character in text)
        if "ByteFallback" in self._kinds:
            byte = _BYTE.fullmatch(text)
            return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()
        return str(self._tokenizer.decode([token])).encode()


def _kinds(state: dict[str, Any]) -> list[str]:
    """The kinds of a decoder and of those in its sequence."""
    return [state["type"], *(kind for part in state.get("decoders", ()) for kind in _kinds(part))]
