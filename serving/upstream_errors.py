"""What is said of a request that the server behind the service did not answer: to the client, and in the log.

The client hears neither the server's address nor its key, and of what the server says only why it refuses a request.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError, OpenAIError

from ontopic.endpoint.refusals import error_told, failure_of, redacted
from ontopic.endpoint.server_error import ServerError, read_error
from serving.errors import RequestError

logger = logging.getLogger("bentoml.ontopic")

_LONGEST_WAIT_S = 600
_TOO_LATE = (408, 504, 524)
_OVERLOADED = (503, 529)


class BrokenOffError(Exception):
    """A reply that is no answer, or none to the end."""


def error_for_client(error: Exception, *, key: str, timeout_s: float) -> RequestError:
    """The error that the client gets.

    Args:
        key: the server's, which is never told.
        timeout_s: what the server may take.
    """
    late = RequestError(f"the model's server gave no answer within {timeout_s:g} s", status=504, code="timeout")
    if isinstance(error, APITimeoutError):
        return late
    told = told_by(error)
    if told is None:
        unreached = isinstance(error, APIConnectionError)
        said = "could not be reached, or broke off" if unreached else "gave no answer that can be read"
        return RequestError(f"the model's server {said}", status=502, code="upstream_failed")
    if told.status in _TOO_LATE:
        return late
    wait_s = _wait_s(error)
    if told.final == "quota":
        return RequestError("the quota at the model's server is used up", status=503, code="upstream_quota")
    if told.status == 429:
        said = f"the model's server has too much to do; ask again in {wait_s} s"
        return RequestError(said, status=429, code="overloaded", retry_after_s=wait_s)
    if told.status in _OVERLOADED:
        said = f"the model's server is overloaded or starting; ask again in {wait_s} s"
        return RequestError(said, status=503, code="upstream_overloaded", retry_after_s=wait_s)
    if told.is_about_the_record or (told.status < 500 and not told.final and not told.is_page):
        return _refused_request(error, told, key=key)
    if told.final == "model":
        said = "the model's server has no such model; see this service's log"
        return RequestError(said, status=502, code="upstream_model_not_found")
    if told.final:
        said = "the model's server does not let this service in; see this service's log"
        return RequestError(said, status=502, code="upstream_refused")
    return RequestError("the model's server failed; see this service's log", status=502, code="upstream_failed")


def told_by(error: Exception) -> ServerError | None:
    """The error that the server told, by its status or in the midst of a stream; ``None`` where it told none."""
    if isinstance(error, APIStatusError):
        return error_told(error)
    if isinstance(error, APIError) and error.body is not None:
        return read_error(200, json.dumps({"error": error.body}).encode())
    return None


def _refused_request(error: Exception, told: ServerError, *, key: str) -> RequestError:
    """The server's own words on a request that it refuses, and which parameter it means."""
    body = getattr(error, "body", None)
    given: dict[str, Any] = body if isinstance(body, dict) else {}
    inner = given.get("error")
    given = inner if isinstance(inner, dict) else given
    param, code = (_name(given.get(name)) for name in ("param", "code"))
    words = redacted(told.words, (), key=key)
    said = f"the model's server refuses the request: {words}" if words else "the model's server refuses the request"
    return RequestError(said, param, status=400, code=code)


def _name(given: Any) -> str | None:
    return given if isinstance(given, str) and given.isprintable() and 0 < len(given) <= 80 else None


def _wait_s(error: Exception) -> int:
    """How long the server says to wait, in whole seconds; 1 where it does not say."""
    headers = error.response.headers if isinstance(error, APIStatusError) else {}
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if seconds >= 0:  # NaN is not
            return max(1, math.ceil(min(seconds, _LONGEST_WAIT_S)))
    return 1


def error_for_log(error: Exception, messages: Sequence[Mapping[str, Any]], *, key: str, address: str) -> None:
    """Log an error with the server's address and words, without its key and without what it quotes of the messages."""
    sent = [{"content": text} for message in messages for text in _texts(message.get("content"))]
    said = failure_of(error, address=address) if isinstance(error, OpenAIError) else f"{address}: {error}"
    if (told := told_by(error)) and told.words not in said:  # in the midst of a stream
        said += f": {told.words}"
    logger.warning("the model's server did not answer: %s", redacted(said, sent, key=key))


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
