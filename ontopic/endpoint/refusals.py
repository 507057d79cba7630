"""What is said of a request that failed: in a cause where another may succeed, in an error where none can."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from openai import APIStatusError, OpenAIError

from ontopic.config.network import proxy_variable
from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.inert import one_line
from ontopic.endpoint.server_error import MOST_WORDS, ServerError
from ontopic.errors import UserError

_ECHO = 20  # so many characters in a row that were sent too are an echo, and no words of the server's
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf)[-_][\w*.-]{4,}|\bBearer\s+\S+", re.I)


class RefusedError(UserError):
    """The server refuses for a reason that no repetition mends: key, quota, model."""


def error_told(error: APIStatusError) -> ServerError:
    """What the server told, as ``ReplyClient`` read it."""
    told = error.response.extensions.get("error")
    return told if isinstance(told, ServerError) else ServerError(error.status_code)


def refusal(told: ServerError, settings: EndpointSettings, *, address: str) -> RefusedError:
    """The sentence for a refusal that is ``final``."""
    said = f"({told.status}: {told.words})" if told.words else f"({told.status})"
    variable = settings.api_key_variable
    sentence = {
        "key": f"{address} does not take the key in {variable} {said}; correct it and run again"
        if os.environ.get(variable)
        else f"{address} asks for a key and {variable} is not set {said}; put it into .env and run again",
        "quota": f"the quota at {address} is used up {said}; see to the account there and run again",
        "model": f"{address} has no model {settings.model!r} to chat with {said}; correct model or base_url in the "
        "configuration and run again",
        "refused": f"{address} refuses the requests {said}; see to it and run again",
    }
    return RefusedError(sentence[told.final or "refused"])


def failure_of(error: OpenAIError, *, address: str) -> str:
    """Why there is no reply, with the server's own words where it said some, else with its address."""
    if not isinstance(error, APIStatusError):
        why, behind = "", error.__cause__ or error.__context__
        while behind is not None:
            why = one_line(str(behind), MOST_WORDS) or why
            behind = behind.__cause__ or behind.__context__
        variable = proxy_variable(address)
        at = f"{address} by the proxy of {variable}" if variable else address
        return f"request failed: {type(error).__name__} at {at}{f': {why}' if why else ''}"
    told = error_told(error)
    kind = "an error in a reply of status 200" if told.status == 200 else f"{type(error).__name__} {told.status}"
    at = f" at {address}" if told.is_page else ""  # then it may be another's server
    return f"request failed: {kind}{at}{f': {told.words}' if told.words else ''}"


def redacted(text: str, sent: Sequence[Mapping[str, str]], *, key: str) -> str:
    """The text without keys and without what it echoes of the messages sent: both stay out of logs and reports."""
    if len(key) > 4:
        text = text.replace(key, "(key)")
    text = _KEY_LIKE.sub("(key)", text)
    messages = "\n".join(" ".join(message["content"].split()) for message in sent)
    kept, i = [], 0
    while i < len(text):
        end = i + _ECHO
        if end <= len(text) and text[i:end] in messages:
            while end < len(text) and text[i : end + 1] in messages:
                end += 1
            kept.append("…")
            i = end
        else:
            kept.append(text[i])
            i += 1
    return "".join(kept)
