"""What a server says where it gives no answer, and whether asking it again could help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

from ontopic.config.network import proxy_variable

Refusal = Literal["key", "model", "quota"]

_MARKS: dict[Refusal, set[int | str]] = {
    "key": {401, 403, "401", "403", "invalid_api_key", "authentication_error", "permission_error"},
    "model": {404, "404", "model_not_found", "not_found_error"},
    "quota": {402, "402", "insufficient_quota", "billing_hard_limit_reached", "billing_not_active"},
}
_LONGEST = 300
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def failure_text(error: OpenAIError, url: str) -> str:
    """Why a request to a server's ``url`` failed, with the server's own words."""
    if isinstance(error, APITimeoutError):
        return "the server did not answer in time"
    if isinstance(error, APIConnectionError):
        variable = proxy_variable(url)
        return f"the server could not be reached{f' by the proxy of {variable}' if variable else ''}"
    if isinstance(error, APIStatusError):
        words = server_words(error.body) or plain(error.response.text)
        return f"status {error.status_code}{f': {words}' if words else ''}"
    return plain(f"{type(error).__name__}: {error}")


def refused_for(status: int, error: Any) -> Refusal | None:
    """What a server refuses every request for, whatever is asked; ``None`` where another request may succeed.

    Args:
        status: of the reply, also where that says 200 and holds an error all the same.
        error: its ``error``, as OpenAI's API has it, or anything else.
    """
    words = [error.get(name) for name in ("code", "type")] if isinstance(error, Mapping) else []
    said = {word for word in words if isinstance(word, int | str)}
    for what, marks in _MARKS.items():
        if status in marks or said & marks:
            return what
    return None


def server_words(body: Any) -> str:
    """The message in an error's JSON, in any of the shapes that servers give it; empty where there is none."""
    while isinstance(body, Mapping):
        body = next((body[name] for name in ("error", "message", "detail", "code") if body.get(name)), "")
    return plain(body) if isinstance(body, str) else ""


def plain(text: str) -> str:
    """A text from outside on one line, without control characters, and not too long."""
    text = _HIDDEN.sub(" ", text.encode(errors="replace").decode()).strip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
