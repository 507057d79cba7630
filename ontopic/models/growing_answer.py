"""An answer that grows by tokens: its pieces are passed on as they are sure, and its end is found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any

from ontopic.models.answer import Generated, Generation, Piece, TokenLogprob
from ontopic.models.growing_text import GrowingText


class GrowingAnswer:
    """An answer under way.

    Args:
        tokenizer: tells the text of its tokens.
        ends: the tokens that end an answer.
    """

    def __init__(self, generation: Generation, *, tokenizer: Any, ends: frozenset[int]) -> None:
        self.generation = generation
        self._text, self._ends = GrowingText(tokenizer, generation.sampling.stop), ends
        self._n = 0
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def take(self, token: int, logprob: Callable[[], TokenLogprob]) -> bool:
        """Pass on what the next token adds; returns whether the answer ends with it.

        Args:
            logprob: gives the token's log-probability, where the client asked for it.

        Raises:
            Exception: of ``logprob``, or of what hears the pieces; then the answer has failed.
        """
        sampling = self.generation.sampling
        if token in self._ends:
            return self._end("stop", self._text.rest())
        self._n += 1
        logprobs = () if sampling.top_logprobs is None else (logprob(),)
        text, stopped = self._text.add(token)
        if stopped:
            return self._end("stop", text, logprobs=logprobs)
        if self._n == sampling.limit:
            return self._end("length", text + self._text.rest(), logprobs=logprobs)
        self._pass_on(text, logprobs)
        return False

    def fail(self, error: Exception) -> None:
        """Let those who wait know that there will be no answer."""
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            self.generation.done.set_exception(error)

    def _pass_on(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self._pieces.append(text)
        self._logprobs += logprobs
        if self.generation.on_piece and (text or logprobs):
            self.generation.on_piece(Piece(text, self._n, logprobs))

    def _end(self, reason: str, text: str, *, logprobs: tuple[TokenLogprob, ...] = ()) -> bool:
        self._pass_on(text, logprobs)
        generated = Generated("".join(self._pieces), len(self.generation.ids), self._n, reason, tuple(self._logprobs))
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            self.generation.done.set_result(generated)
        return True
