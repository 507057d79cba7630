"""An answer on its way: what is asked of a batch, the pieces, the whole; and what a batch of answers can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from ontopic.records import Parameters


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. At temperature 0 the likeliest is taken.

    Attributes:
        limit: the most tokens of the answer.
        top_p: only the likeliest tokens that hold this much probability are sampled from (Holtzman et al. 2020).
        seed: of the samples; ``None`` for any.
        stop: the answer ends before the first of these texts.
        top_logprobs: so many of the likeliest tokens are reported at each place, besides the sampled one; ``None`` for
            no log-probabilities at all.
    """

    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None


def sampling_of(parameters: Parameters) -> Sampling:
    """How the tokens of a record's answer were sampled."""
    return Sampling(
        parameters.max_tokens,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        seed=parameters.seed,
        stop=parameters.stop,
    )


def parameters_of(sampling: Sampling) -> Parameters:
    """The same as a record keeps it: the seed as the generator takes it."""
    return Parameters(
        max_tokens=sampling.limit,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=None if sampling.seed is None else sampling.seed % 2**63,
        stop=sampling.stop,
    )


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer, the natural logarithm of its probability, and the likeliest ones at its place.

    Tokens are bytes of UTF-8: one may be half a character.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step adds to an answer.

    Attributes:
        text: empty where it cannot be told yet what it will be.
        completion_tokens: of the answer so far, those of this piece among them.
    """

    text: str
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Generated:
    """A whole answer.

    Attributes:
        text: without white space at either end, as its pieces are.
        completion_tokens: without the token that ends it.
        finish_reason: ``stop``, ``length``, or ``content_filter`` where the guard cut it or the refusal took its place,
            or where another server's filter did.
        metadata: what another server that gave it says of itself.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it was not cut at the token limit."""
        return self.finish_reason != "length"


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
        sent: the request as the client sent it, for a batch that passes it on to another server.
    """

    ids: list[int]
    sampling: Sampling
    on_piece: Callable[[Piece], object] | None = None
    done: Future[Generated] = field(default_factory=Future)
    sent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """Places that it may come to take in the cache."""
        return len(self.ids) + self.sampling.limit


class Batch(Protocol):
    """What generates answers, many at once, on a thread of its own.

    Attributes:
        alternatives: whether it can tell the likeliest tokens at a place besides the sampled one.
    """

    alternatives: bool

    @property
    def waiting(self) -> int:
        """Answers that wait for a place."""

    @property
    def running(self) -> int:
        """Answers under way."""

    def submit(self, generations: Sequence[Generation]) -> None:
        """Queue answers, all or none.

        Raises:
            OverloadedError: too many wait.
            RuntimeError: the batch was closed.
        """

    def close(self, timeout_s: float | None = None) -> None:
        """Take no more, and return when what was taken is answered, or after so many seconds."""
