"""The text of an answer that grows by tokens: what of it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class GrowingText:
    """Text of a growing answer. Held back is what may yet turn out to be white space at the end, the first half of a
    character, or the beginning of a stop text."""

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer.backend_tokenizer, stop
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held = ""
        self._begun = False

    def add(self, token: int) -> tuple[str, bool]:
        """The text that is sure now, and whether a stop text ends it."""
        self._held += self._stream.step(self._tokenizer, token) or ""
        found = [at for at in (self._held.find(text) for text in self._stop) if at >= 0]
        if found:
            self._held = self._held[: min(found)]
            return self.rest(), True
        sure = len(self._held.rstrip())
        for text in self._stop:
            for n in range(min(len(text) - 1, len(self._held)), 0, -1):
                if self._held.endswith(text[:n]):
                    sure = min(sure, len(self._held[: len(self._held) - n].rstrip()))
                    break
        given, self._held = self._held[:sure], self._held[sure:]
        return self._first(given), False

    def rest(self) -> str:
        """What is held back, without white space at the end."""
        given, self._held = self._held.rstrip(), ""
        return self._first(given)

    def _first(self, text: str) -> str:
        text = text if self._begun else text.lstrip()
        self._begun = self._begun or bool(text)
        return text
