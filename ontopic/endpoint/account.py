"""What asking an LLM server has used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Account:
    """What was used so far.

    Attributes:
        requests: replies that came back from an LLM, each of which counts once however often it was asked for.
        cached: answers that were known already and cost nothing.
        usd: the cost; ``None`` where the price is not known.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    usd: float | None = None
