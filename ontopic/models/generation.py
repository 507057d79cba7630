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
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from ontopic.models.loading import LanguageModel, chat_prompts
from ontopic.progress import Advance

SLOTS = 64
CACHE_TOKENS = 16_384  # of all answers under way, padding included: 46 KB each on the embedded model
PREFILL_TOKENS = 512  # read at most in one go, as the running answers wait for it
_PREFILL_ROWS = 8
_LEAST_PREFIX, _MOST_PREFIX = 16, 2048
_LEAST_TEMPERATURE = 1e-6  # dividing by less overflows; the likeliest token has all the probability by then


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. At temperature 0 the likeliest is taken.

    Attributes:
        limit: the most tokens of the answer.
        top_p: only the likeliest tokens that hold this much probability are drawn from (Holtzman et al. 2020).
        seed: of the draws; ``None`` for any.
        stop: the answer ends before the first of these texts.
        top_logprobs: so many of the likeliest tokens are reported at each place, besides the drawn one; ``None`` for no
            log-probabilities at all.
    """

    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, the natural logarithm of its probability, and the likeliest ones at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step adds to an answer; ``text`` may be empty while it cannot be told yet what it will be."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Generated:
    """A whole answer.

    Attributes:
        text: without white space at either end, as its pieces are.
        completion_tokens: without the token that ends it.
        finish_reason: ``stop`` or ``length``.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.finish_reason == "stop"


class OverloadedError(Exception):
    """Too many wait already; ``retry_after_s`` is when there should be room."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many requests wait for an answer; ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class Generation:
    """One answer on its way.

    Attributes:
        ids: the prompt's tokens; at least one.
        on_piece: called on the generating thread with each piece; must be quick and must not raise.
        done: the whole answer, or what went wrong. Cancelled, it gives up its place at the next step.
        completion_tokens: so far.
    """

    ids: list[int]
    sampling: Sampling
    on_piece: Callable[[Piece], object] | None = None
    done: Future[Generated] = field(default_factory=Future)
    completion_tokens: int = 0

    @property
    def room(self) -> int:
        """Places that it may come to take in the cache."""
        return len(self.ids) + self.sampling.limit


class ContinuousBatch:
    """A model's one thread of generation.

    Args:
        language_model: used by that thread alone; its tokenizer is not safe to share, so prompts come as token ids.
        most_waiting: requests that may wait for a place; one more is refused.
        slots: the most answers under way.
    """

    def __init__(self, language_model: LanguageModel, most_waiting: int = 256, *, slots: int = SLOTS) -> None:
        self._model: Any = language_model.model
        self._tokenizer: Any = language_model.tokenizer
        self._ends = _end_tokens(language_model)
        self._most_waiting, self._most_running = most_waiting, slots
        self._waiting: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._rate = 0.0  # tokens a second, of late
        self._rows: list[_Row] = []
        self._slots = _Slots()
        self._reading: _Reading | None = None
        self._prefix = _Prefix()
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Answers under way."""
        return len(self._rows)

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
        while True:
            with self._changed:
                while not (self._waiting or self._rows or self._reading):
                    if self._closing:
                        return
                    self._slots = _Slots()  # an idle model holds no cache
                    self._changed.wait()
            start, before = time.perf_counter(), len(self._rows)
            try:
                self._drop_cancelled()
                self._read_prompts()
                if self._rows:
                    self._step()
            except Exception as error:  # out of memory, a bug: those under way hear of it, and the others go on
                self._fail(error)
            if before:
                rate = before / (time.perf_counter() - start)
                self._rate = 0.9 * self._rate + 0.1 * rate if self._rate else rate

    def _fail(self, error: Exception) -> None:
        failed = [row.generation for row in self._rows] + (self._reading.generations if self._reading else [])
        self._rows, self._reading, self._slots, self._prefix = [], None, _Slots(), _Prefix()
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
            self._reading = _Reading(group, self._prefix)
        reading = self._reading
        if not reading.read(self._model):
            return
        self._reading = None
        self._prefix.learn(reading)
        for i, generation in enumerate(reading.generations):
            if generation.done.cancelled():
                continue
            row = _Row(generation, len(generation.ids), text=_Text(self._tokenizer, generation.sampling.stop))
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
                    or (group and padded > PREFILL_TOKENS)
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
            ended = row.take(likeliest, logits, tokenizer=self._tokenizer, ends=self._ends)
        except Exception as error:  # of this answer alone
            ended = True
            with contextlib.suppress(InvalidStateError):
                row.generation.done.set_exception(error)
        if ended:
            self._free(slot)


class _Row:
    """An answer under way. ``length`` counts its tokens in the cache: all but the newest."""

    def __init__(self, generation: Generation, length: int, *, text: _Text) -> None:
        self.generation, self.length = generation, length
        self.tokens: list[int] = []
        self._text = text
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._chance: torch.Generator | None = None
        if generation.sampling.temperature > 0:
            self._chance = torch.Generator()
            seed = generation.sampling.seed
            self._chance.manual_seed(seed % 2**63) if seed is not None else self._chance.seed()

    def take(self, likeliest: int, logits: torch.Tensor, *, tokenizer: Any, ends: frozenset[int]) -> bool:
        """Draw the next token and pass on what it adds; returns whether the answer ends with it."""
        sampling = self.generation.sampling
        token = likeliest if self._chance is None else _drawn(logits, sampling, chance=self._chance)
        if token in ends:
            return self._end("stop", self._text.rest())
        self.tokens.append(token)
        logprobs = (
            (_logprob(logits, token, top=sampling.top_logprobs, tokenizer=tokenizer),)
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
            self.generation.on_piece(Piece(text, logprobs))

    def _end(self, reason: str, text: str, *, logprobs: tuple[TokenLogprob, ...] = ()) -> bool:
        self._pass_on(text, logprobs)
        generated = Generated(
            "".join(self._pieces), len(self.generation.ids), len(self.tokens), reason, tuple(self._logprobs)
        )
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            self.generation.done.set_result(generated)
        return True


class _Text:
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


class _Reading:
    """Prompts that are read together, up to what the prefix knows, then chunk by chunk.

    Attributes:
        cache: keys and values of the prompts, a row each, padded on the right.
        logits: of the token after each prompt, of shape (vocabulary,).
    """

    def __init__(self, generations: list[Generation], prefix: _Prefix) -> None:
        self.generations = generations
        self.logits: dict[int, torch.Tensor] = {}
        self._lengths = [len(each.ids) for each in generations]
        self.cache, self._done = prefix.cache_for([each.ids for each in generations])
        self._ids = torch.zeros(len(generations), max(self._lengths), dtype=torch.long)
        for row, each in enumerate(generations):
            self._ids[row, : len(each.ids)] = torch.tensor(each.ids)

    def read(self, model: Any) -> bool:
        """Read the next chunk; returns whether it was the last. Padding is at the end, where no token sees it."""
        start = self._done
        end = min(start + max(1, PREFILL_TOKENS // len(self._ids)), self._ids.shape[1])
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


class _Prefix:
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

    def learn(self, reading: _Reading) -> None:
        """Keep what the first prompt that was read shares with the one before, where that is more than is kept."""
        ids = reading.generations[0].ids
        shared = min(_shared(self._last, ids), _MOST_PREFIX)
        self._last = ids
        if shared >= _LEAST_PREFIX and shared > _shared(self._ids, ids):
            self._ids = ids[:shared]
            layers: Sequence[Any] = reading.cache.layers
            self._layers = [
                (layer.keys[:1, :, :shared].clone(), layer.values[:1, :, :shared].clone()) for layer in layers
            ]


class _Slots(Cache):
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

    def writing_at(self, lengths: torch.Tensor, end: int) -> _Slots:
        """Itself, set to write the next token of row i at ``lengths[i]``, and to give ``end`` places to read."""
        for layer in self._slots:
            layer.lengths, layer.rows, layer.end = lengths, torch.arange(len(lengths), device=lengths.device), end
        return self


class _SlotLayer(CacheLayerMixin):
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


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the beginning that two lists share."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _drawn(logits: torch.Tensor, sampling: Sampling, *, chance: torch.Generator) -> int:
    probabilities = torch.softmax(logits.float().cpu() / max(sampling.temperature, _LEAST_TEMPERATURE), -1)
    if sampling.top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        keep = ordered.cumsum(0) - ordered < sampling.top_p
        keep[0] = True
        return int(tokens[torch.multinomial(ordered * keep, 1, generator=chance)])
    return int(torch.multinomial(probabilities, 1, generator=chance))


def _logprob(logits: torch.Tensor, token: int, *, top: int, tokenizer: Any) -> TokenLogprob:
    logprobs = torch.log_softmax(logits.float(), -1)
    best = logprobs.topk(top) if top else None
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenLogprob(
        tokenizer.decode([token]),
        float(logprobs[token]),
        tuple((tokenizer.decode([i]), value) for i, value in likeliest),
    )


def _end_tokens(language_model: LanguageModel) -> frozenset[int]:
    configured = getattr(language_model.model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*configured, language_model.tokenizer.eos_token_id) if token is not None)


def generate(
    language_model: LanguageModel,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    max_new_tokens: int,
    slots: int = SLOTS,
    advance: Advance | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Generated]:
    """Answers, in the order of ``conversations``; greedy at temperature 0.

    Args:
        slots: how many are generated together.
        advance: called with 1 for each answer.
        seed: of the first answer's draws; each has one of its own.
    """
    prompts = chat_prompts(language_model.tokenizer, conversations)
    tokens = [language_model.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    generations = [
        Generation(ids, Sampling(max_new_tokens, temperature, seed=seed + number)) for number, ids in enumerate(tokens)
    ]
    for generation in generations:
        if advance:
            generation.done.add_done_callback(lambda _: advance(1))
    batch = ContinuousBatch(language_model, len(generations), slots=slots)
    batch.submit(sorted(generations, key=lambda each: len(each.ids)))  # prompts of a length are read without padding
    try:
        return [generation.done.result() for generation in generations]
    finally:
        for generation in generations:
            generation.done.cancel()
        batch.close()
