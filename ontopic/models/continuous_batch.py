"""Generation of many answers at once: continuous batching (Yu et al. 2022, Orca, OSDI) on one thread.

Each step gives every running answer its next token. A new request joins between two steps, once its prompt is read, and
leaves at its own end: nobody waits for the longest answer of a batch.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError
from typing import Any

import torch

from ontopic.models.answer import Generated, Generation, OverloadedError, Piece, TokenLogprob
from ontopic.models.growing_text import GrowingText
from ontopic.models.loading import LanguageModel
from ontopic.models.prefix import SharedPrefix
from ontopic.models.prompt_reading import PREFILL_TOKENS, PromptReading
from ontopic.models.sampling import sampled, token_logprob
from ontopic.models.slot_cache import SlotCache
from ontopic.models.token_bytes import TokenBytes

SLOTS = 64
CACHE_TOKENS = 16_384  # of all answers under way, padding included: 46 KB each on the embedded model
_PREFILL_ROWS = 8
_YIELD_S, _YIELDED = 0.005, 19


class ContinuousBatch:
    """A model's one thread of generation.

    Args:
        language_model: used by that thread alone; its tokenizer is not safe to share, so prompts come as token ids.
        most_waiting: requests that may wait for a place; one more is refused.
        slots: the most answers under way.
        prompt_tokens: of prompts, read at most in one go.
        yields_to: whether others are served now, for whom this batch waits between two steps, 19 times as long as the
            last took, so that it takes a twentieth of the time at most; ``None`` for none.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        most_waiting: int = 256,
        *,
        slots: int = SLOTS,
        prompt_tokens: int = PREFILL_TOKENS,
        yields_to: Callable[[], bool] | None = None,
    ) -> None:
        self._model: Any = language_model.model
        self._tokenizer: Any = language_model.tokenizer
        self._token_bytes = TokenBytes(language_model.tokenizer)
        self._ends = _end_tokens(language_model)
        self._most_waiting, self._most_running, self._prompt_tokens = most_waiting, slots, prompt_tokens
        self._yields_to = yields_to
        self._waiting: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rate = 0.0  # tokens a second, of late
        self._rows: list[_Row] = []
        self._slots = SlotCache()
        self._reading: PromptReading | None = None
        self._prefix = SharedPrefix()
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Answers under way, those whose prompt is being read among them."""
        reading = self._reading
        return len(self._rows) + (len(reading.generations) if reading else 0)

    def submit(self, generations: Sequence[Generation]) -> None:
        """Queue answers, all or none.

        Raises:
            OverloadedError: too many wait.
            RuntimeError: the batch was closed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the model is being taken out of service")
            if len(self._waiting) + len(generations) > self._most_waiting:
                ahead = sum(each.sampling.limit for each in self._waiting)
                raise OverloadedError(min(60, max(1, math.ceil(ahead / self._rate))) if self._rate else 1)
            self._waiting.extend(generations)
            self._changed.notify()

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more, and return when what was taken is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)

    @torch.inference_mode()
    def _run(self) -> None:
        again_at = 0.0
        while True:
            with self._changed:
                while not (self._waiting or self._rows or self._reading):
                    if self._closing:
                        return
                    self._slots = SlotCache()  # an idle model holds no cache
                    self._changed.wait()
            while self._must_yield(again_at):
                time.sleep(_YIELD_S)
            start, before = time.perf_counter(), len(self._rows)
            try:
                self._drop_cancelled()
                self._read_prompts()
                if self._rows:
                    self._step()
            except Exception as error:  # out of memory, a bug: those under way hear of it, and the others go on
                self._fail(error)
            again_at = time.perf_counter() + _YIELDED * (time.perf_counter() - start)
            if before:
                rate = before / (time.perf_counter() - start)
                self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate

    def _must_yield(self, again_at: float) -> bool:
        """Whether others are served for whom this batch waits; until that time, at the latest."""
        waits = self._yields_to is not None and not self._closing and self._yields_to()
        return waits and time.perf_counter() < again_at

    def _fail(self, error: Exception) -> None:
        failed = [row.generation for row in self._rows] + (self._reading.generations if self._reading else [])
        self._rows, self._reading, self._slots, self._prefix = [], None, SlotCache(), SharedPrefix()
        for generation in failed:
            with contextlib.suppress(InvalidStateError):  # it was cancelled
                generation.done.set_exception(error)

    def _drop_cancelled(self) -> None:
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].generation.done.cancelled():
                self._free(slot)

    def _free(self, slot: int) -> None:
        """The last row takes the freed one's slot, so that the rows stay together."""
        last = self._rows.pop()
        if slot < len(self._rows):
            self._slots.copy(len(self._rows), slot, length=last.length)
            self._rows[slot] = last

    def _read_prompts(self) -> None:
        """Read one chunk of the prompts that join next; the answers of those that are read begin."""
        if self._reading is None:
            group = self._admitted()
            if not group:
                return
            self._reading = PromptReading(group, self._prefix, tokens=self._prompt_tokens)
        reading = self._reading
        if not reading.read(self._model):
            return
        self._reading = None
        self._prefix.learn(reading.generations[0].ids, reading.cache)
        for i, generation in enumerate(reading.generations):
            if generation.done.cancelled():
                continue
            row = _Row(generation, len(generation.ids), text=GrowingText(self._tokenizer, generation.sampling.stop))
            room = max(each.generation.room for each in (*self._rows, row))
            self._slots.add(len(self._rows), reading.cache, row=i, length=row.length, room=room)
            self._rows.append(row)
            self._take(len(self._rows) - 1, int(reading.logits[i].argmax()), logits=reading.logits[i])

    def _admitted(self) -> list[Generation]:
        """Those that wait longest and fit, to be read together."""
        group: list[Generation] = []
        longest = max((row.generation.room for row in self._rows), default=0)
        with self._changed:
            while self._waiting and len(group) < _PREFILL_ROWS:
                first = self._waiting[0]
                longest = max(longest, first.room)
                rows = len(self._rows) + len(group) + 1
                padded = max(len(each.ids) for each in (*group, first)) * (len(group) + 1)
                if (
                    rows > self._most_running
                    or (rows > 1 and rows * longest > CACHE_TOKENS)
                    or (group and padded > self._prompt_tokens)
                ):
                    break
                self._waiting.popleft()
                if not first.done.cancelled():
                    group.append(first)
        return group

    def _step(self) -> None:
        """One token for each running answer."""
        device = self._model.device
        lengths = torch.tensor([row.length for row in self._rows])
        ids = torch.tensor([[row.tokens[-1]] for row in self._rows])
        end = int(lengths.max()) + 1
        mask = (torch.arange(end) <= lengths[:, None])[:, None, None, :]
        logits = self._model(
            input_ids=ids.to(device),
            position_ids=lengths[:, None].to(device),
            attention_mask=mask.to(device),
            past_key_values=self._slots.writing_at(lengths.to(device), end),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        likeliest = logits.argmax(-1).tolist()
        for slot in reversed(range(len(self._rows))):
            self._rows[slot].length += 1
            self._take(slot, likeliest[slot], logits=logits[slot])

    def _take(self, slot: int, likeliest: int, *, logits: torch.Tensor) -> None:
        row = self._rows[slot]
        try:
            ended = row.take(likeliest, logits, token_bytes=self._token_bytes, ends=self._ends)
        except Exception as error:  # of this answer alone
            ended = True
            with contextlib.suppress(InvalidStateError):
                row.generation.done.set_exception(error)
        if ended:
            self._free(slot)


class _Row:
    """An answer under way. ``length`` counts its tokens in the cache: all but the newest."""

    def __init__(self, generation: Generation, length: int, *, text: GrowingText) -> None:
        self.generation, self.length = generation, length
        self.tokens: list[int] = []
        self._text = text
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._generator: torch.Generator | None = None
        if generation.sampling.temperature > 0:
            self._generator = torch.Generator()
            seed = generation.sampling.seed
            self._generator.manual_seed(seed % 2**63) if seed is not None else self._generator.seed()

    def take(self, likeliest: int, logits: torch.Tensor, *, token_bytes: TokenBytes, ends: frozenset[int]) -> bool:
        """Sample the next token and pass on what it adds; returns whether the answer ends with it.

        Args:
            likeliest: the token that is taken at temperature 0.
            logits: of shape (vocabulary,).
            ends: the tokens that end an answer.
        """
        sampling = self.generation.sampling
        token = likeliest if self._generator is None else sampled(logits, sampling, generator=self._generator)
        if token in ends:
            return self._end("stop", self._text.rest())
        self.tokens.append(token)
        logprobs = (
            (token_logprob(logits, token, top=sampling.top_logprobs, token_bytes=token_bytes),)
            if sampling.top_logprobs is not None
            else ()
        )
        text, stopped = self._text.add(token)
        if stopped:
            return self._end("stop", text, logprobs=logprobs)
        if len(self.tokens) == sampling.limit:
            return self._end("length", text + self._text.rest(), logprobs=logprobs)
        self._pass_on(text, logprobs)
        return False

    def _pass_on(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self._pieces.append(text)
        self._logprobs += logprobs
        if self.generation.on_piece and (text or logprobs):
            self.generation.on_piece(Piece(text, len(self.tokens), logprobs))

    def _end(self, reason: str, text: str, *, logprobs: tuple[TokenLogprob, ...] = ()) -> bool:
        self._pass_on(text, logprobs)
        generated = Generated(
            "".join(self._pieces), len(self.generation.ids), len(self.tokens), reason, tuple(self._logprobs)
        )
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            self.generation.done.set_result(generated)
        return True


def _end_tokens(language_model: LanguageModel) -> frozenset[int]:
    configured = getattr(language_model.model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*configured, language_model.tokenizer.eos_token_id) if token is not None)
