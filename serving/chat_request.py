"""A request for a chat completion: what of OpenAI's parameters is honoured, and what is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ontopic.models.answer import Sampling
from ontopic.traffic import identity
from ontopic.traffic.chats import calls_in_words
from serving.errors import RequestError

MOST_CHOICES = 8
MOST_STOPS, MOST_STOP_CHARACTERS = 4, 200
MOST_TOP_LOGPROBS = 20
# What a request may say besides what is honoured; None stands for any value.
NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
}
# Where the service passes requests on, such may have any value: the server behind it honours or refuses them.
PASSED_ON = {
    *("presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "verbosity", "response_format"),
    *("store", "service_tier"),
}
# The second is OpenAI's newer name of ``system``, the last its older one of ``tool``; no chat template knows them.
ROLES = {
    **{"system": "system", "developer": "system", "user": "user", "assistant": "assistant"},
    **{"tool": "tool", "function": "tool"},
}
MOST_PAIRS, MOST_KEY_CHARACTERS, MOST_VALUE_CHARACTERS = 16, 64, 512
CONVERSATION_HEADER = "x-conversation-id"
_CONVERSATION = "conversation_id"  # in the metadata
_WHO = ("user", "safety_identifier")  # the second is OpenAI's newer name of the first
_TEXTS = ("text", "refusal")  # types of a message's parts
UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # no database takes it


@dataclass(frozen=True)
class ChatRequest:
    """A checked request.

    Attributes:
        sampling: of the first choice; a seed grows by one from choice to choice.
        cut: whether more tokens were asked for than any answer may have.
        n: choices, each an answer of its own.
        include_usage: whether a stream ends with the token counts.
        user: whom the client says it asks for.
        metadata: what else it says of the request.
        conversation_id: how it names the conversation; empty where it does not.
        sent: the parameters as the client sent them, where the service passes them on.
    """

    messages: list[dict[str, str]]
    sampling: Sampling
    n: int
    stream: bool
    include_usage: bool
    cut: bool = False
    user: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    conversation_id: str = ""
    sent: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The user's newest message."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == "user")

    def conversation(self, key: str, *, user_key: identity.NamesKey) -> str:
        """What is the same for the turns of one conversation: how the client names it, else a hash of who asks and the
        user's first message.

        Args:
            key: the name of the API key.
            user_key: the key that names are hashed with, or its file.
        """
        if self.conversation_id:
            return identity.conversation_id(self.conversation_id, user_key)
        first = next(message["content"] for message in self.messages if message["role"] == "user")
        return identity.begun_alike(key, identity.user_hash(self.user, user_key), first=first)


def chat_request(
    body: dict[str, Any], model_name: str, *, most_tokens: int, conversation_id: str = "", passes_on: bool = False
) -> ChatRequest:
    """Check a request's body.

    Temperature is 0 where it is left out: a bank's assistant should say the same to the same question. Where the
    request is passed on it is 1, as OpenAI's API has it.

    Args:
        most_tokens: no answer is longer, whatever the request asks for.
        conversation_id: the header's; what the metadata says comes first.
        passes_on: whether another server gets the request, which may then ask for more than we could honour.

    Raises:
        RequestError: a parameter is unknown, not supported or out of range; its ``param`` names it.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if not isinstance(given.get("model"), str):
        raise RequestError("model must name the model", "model")
    if given["model"] != model_name:
        raise RequestError(
            f"this server has no such model; it serves {model_name!r}", "model", status=404, code="model_not_found"
        )
    _check_supported(given, passes_on=passes_on)
    logprobs = _boolean(given, "logprobs")
    top_logprobs = _whole(given, "top_logprobs", least=0, most=MOST_TOP_LOGPROBS, default=0)
    if "top_logprobs" in given and not logprobs and top_logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", "top_logprobs")
    limits = [name for name in ("max_completion_tokens", "max_tokens") if name in given]
    wanted_tokens = _whole(given, limits[0], least=1, most=None, default=most_tokens) if limits else most_tokens
    sampling = Sampling(
        min(most_tokens, wanted_tokens),
        temperature=_number(given, "temperature", least=0, most=2, default=1.0 if passes_on else 0.0),
        top_p=_number(given, "top_p", least=0, most=1, default=1.0),
        seed=_whole(given, "seed", least=-(2**63), most=2**63 - 1, default=0) if "seed" in given else None,
        stop=_stop(given.get("stop", [])),
        top_logprobs=top_logprobs if logprobs else None,
    )
    options = given.get("stream_options", {})
    stream = _boolean(given, "stream")
    if not isinstance(options, dict) or (options and not stream):
        raise RequestError("stream_options is an object, and needs stream to be true", "stream_options")
    if unknown := sorted(options.keys() - {"include_usage", "include_obfuscation"}):
        raise RequestError(f"stream_options.{unknown[0]} is not supported by this server", "stream_options")
    messages, metadata = _checked_messages(given.get("messages")), _metadata(given.get("metadata", {}))
    if len(conversation_id) > MOST_VALUE_CHARACTERS:
        raise RequestError(f"{CONVERSATION_HEADER} has at most {MOST_VALUE_CHARACTERS} characters", CONVERSATION_HEADER)
    return ChatRequest(
        messages,
        sampling,
        _whole(given, "n", least=1, most=MOST_CHOICES, default=1),
        stream,
        _boolean(options, "include_usage"),
        cut=wanted_tokens > most_tokens,
        user=next((given[name] for name in _WHO if isinstance(given.get(name), str) and given[name]), ""),
        metadata=metadata,
        conversation_id=metadata.get(_CONVERSATION) or conversation_id,
        sent=_checked_json(given) if passes_on else {},
    )


def _check_supported(given: dict[str, Any], *, passes_on: bool) -> None:
    for name, value in given.items():
        if name not in _HONOURED and name not in NEUTRAL:
            raise RequestError(f"{name} is not supported by this server", name)
        allowed = None if passes_on and name in PASSED_ON else NEUTRAL.get(name)
        if allowed is not None and value not in allowed:
            wanted = " or ".join(json.dumps(each) for each in allowed)
            raise RequestError(f"{name} must be {wanted} on this server, or left out", name)


_HONOURED = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "n",
    "logprobs",
    "top_logprobs",
    "stream",
    "stream_options",
    "metadata",
    *_WHO,
}


def _checked_json(given: dict[str, Any]) -> dict[str, Any]:
    """The same; Python reads a JSON with endless numbers and halves of characters, which no other server would."""
    try:
        json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise RequestError("the body holds a number or a text that JSON cannot hold") from error
    return given


def _boolean(given: dict[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false", name)
    return bool(value)


def _whole(given: dict[str, Any], name: str, *, least: int, most: int | None, default: int) -> int:
    value = given.get(name, default)
    if isinstance(value, float) and value.is_integer():  # JSON of languages that know one kind of number
        value = int(value)
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"between {least} and {most}"
        raise RequestError(f"{name} must be a whole number {bounds}", name)
    return value


def _number(given: dict[str, Any], name: str, *, least: float, most: float, default: float) -> float:
    value = given.get(name, default)
    if type(value) not in (int, float) or not least <= value <= most:  # NaN is not
        raise RequestError(f"{name} must be a number between {least:g} and {most:g}", name)
    return float(value)


def _stop(given: object) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    good = isinstance(texts, list) and len(texts) <= MOST_STOPS
    if not isinstance(texts, list) or not good or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"stop must be a text, or a list of at most {MOST_STOPS} texts that are not empty", "stop")
    if max(map(len, texts), default=0) > MOST_STOP_CHARACTERS:
        raise RequestError(f"a stop text has at most {MOST_STOP_CHARACTERS} characters", "stop")
    if any(map(UNSTORABLE.search, texts)):
        raise RequestError("a stop text holds a NUL or a lone surrogate, which is not text", "stop")
    return tuple(texts)


def _metadata(given: object) -> dict[str, str]:
    """Checked as OpenAI's API does."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise RequestError("metadata must be an object of texts", "metadata")
    if len(given) > MOST_PAIRS:
        raise RequestError(f"metadata has at most {MOST_PAIRS} pairs", "metadata")
    for name, value in given.items():
        if len(name) > MOST_KEY_CHARACTERS or len(value) > MOST_VALUE_CHARACTERS:
            limits = f"{MOST_KEY_CHARACTERS} characters, a value {MOST_VALUE_CHARACTERS}"
            raise RequestError(f"a key of metadata has at most {limits}", "metadata")
        if UNSTORABLE.search(name + value):
            raise RequestError("metadata holds a NUL or a lone surrogate, which is not text", "metadata")
    return given


def _checked_messages(given: object) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        raise RequestError("messages must be a list of at least one message", "messages")
    messages = []
    for i, message in enumerate(given):
        name = f"messages[{i}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            raise RequestError(f"{name}.role must be {', '.join(ROLES)}", f"{name}.role")
        content = message.get("content")
        if content is None and role == "assistant" and message.get("tool_calls"):
            content = calls_in_words(message["tool_calls"])
            if content is None:
                raise RequestError(f"{name}.tool_calls must be calls of functions", f"{name}.tool_calls")
        messages.append({"role": ROLES[role], "content": _checked_content(content, name)})
    if not any(message["role"] == "user" for message in messages):
        raise RequestError("messages must hold a message of the user", "messages")
    return messages


def _checked_content(content: object, name: str) -> str:
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") in _TEXTS for part in content):
        parts = [part.get(part["type"]) for part in content]
        content = "\n".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(content, str):
        raise RequestError(f"{name}.content must be a text or a list of text parts", f"{name}.content")
    if UNSTORABLE.search(content):
        raise RequestError(f"{name}.content holds a NUL or a lone surrogate, which is not text", f"{name}.content")
    return content
