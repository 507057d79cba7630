"""What is said between a batch and the process that generates for it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Add(NamedTuple):
    """A request: its number, the prompt's tokens, and how it is sampled, as ``GenerationConfig`` takes it."""

    number: int
    ids: list[int]
    settings: dict[str, Any]


class Stop(NamedTuple):
    """Nobody waits for the rest of this request."""

    number: int


class Step(NamedTuple):
    """Leave for one step, where the other side gives it."""


class Given(NamedTuple):
    """What a step gave a request; ``failed`` says why it gets no more, and is empty else."""

    number: int
    tokens: list[int]
    logprobs: list[float]
    failed: str
