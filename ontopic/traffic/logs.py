"""What other tools log of requests and their answers, as fields of ``TrafficRow``, recognised by their fields.

OpenAI's stored completions     https://platform.openai.com/docs/api-reference/chat/list, with the messages of each
LiteLLM's logs                  https://docs.litellm.ai/docs/proxy/logging_spec, and its table of spend logs
Langfuse's exports              https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields
Phoenix's spans                 https://arize-ai.github.io/openinference/spec/llm_spans.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ontopic.records import Parameters
from ontopic.traffic.chats import answer_in, conversation_in, first_choice, known, question_in

Fields = dict[str, Any]
_TIME = TypeAdapter(datetime)
_ANSWERS = ("completion", "acompletion", "", None)  # LiteLLM's types of calls that are chats


def from_log(row: Fields) -> Fields | None:
    """A log's row as fields; ``None`` where it is none of these tools'. What is no answer to a request says so in
    ``aside``.

    Raises:
        ValueError: it is one, and lacks the request or the answer.
    """
    for is_one, fields in _LOGS:
        if is_one(row):
            return known(fields(row))
    return None


def _is_stored_completion(row: Fields) -> bool:
    return row.get("object") == "chat.completion" and "choices" in row


def _stored_completion(row: Fields) -> Fields:
    messages = row.get("messages") or row.get("input")
    if isinstance(messages, dict):
        messages = messages.get("data")  # as the API lists them
    if not messages:
        raise ValueError("a stored completion holds no request; put what its /messages lists beside it as 'messages'")
    usage, user = _object(row.get("usage")), row.get("input_user") or row.get("user")
    return {
        **_asked(messages, row),
        "id": row.get("id"),
        "model_version": row.get("model"),
        "asked_at": row.get("created"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "finished": _finished(row),
        "parameters": _parameters(row),
        **_said(user=user, metadata=row.get("metadata")),
    }


def _is_litellm(row: Fields) -> bool:
    return "call_type" in row and ("startTime" in row or "start_time" in row) and ("request_id" in row or "id" in row)


def _litellm(row: Fields) -> Fields:
    if row.get("call_type") not in _ANSWERS or row.get("status") == "failure":
        return _aside(f"a call of type {row.get('call_type')}, status {row.get('status')}")
    request = _object(row.get("proxy_server_request"))
    request = _object(request.get("body")) or request
    messages = _json(row.get("messages")) or request.get("messages")
    response, metadata = _json(row.get("response")), _object(row.get("metadata"))
    if not messages or not response:
        raise ValueError(
            "LiteLLM's log holds no messages or no response; let it store prompts (store_prompts_in_spend_logs)"
        )
    start, end = row.get("startTime", row.get("start_time")), row.get("endTime", row.get("end_time"))
    named = metadata.get("requester_metadata") or request.get("metadata")
    return {
        **_asked(messages, response),
        "id": row.get("request_id") or row.get("id"),
        "model_version": row.get("model"),
        "asked_at": start,
        "latency_s": _seconds(start, end),
        "prompt_tokens": row.get("prompt_tokens"),
        "completion_tokens": row.get("completion_tokens"),
        "finished": _finished(response),
        "parameters": _parameters(_object(row.get("model_parameters")) or request),
        "key": metadata.get("user_api_key_alias"),
        **_said(
            user=row.get("end_user") or request.get("user"),
            conversation=row.get("session_id") or _object(named).get("session_id"),
            metadata=named,
        ),
    }


def _is_langfuse(row: Fields) -> bool:
    of_trace = {"traceId", "trace_id"} & row.keys() and {"startTime", "start_time"} & row.keys()
    is_trace = "timestamp" in row and {"sessionId", "session_id", "userId", "user_id"} & row.keys()
    return "name" in row and "output" in row and bool(of_trace or is_trace)


def _langfuse(row: Fields) -> Fields:
    def value(camel: str, snake: str) -> Any:
        return row.get(camel, row.get(snake))

    kind = row.get("type", "GENERATION")
    if kind != "GENERATION" or row.get("output") is None:
        return _aside(f"an observation of type {kind}")
    start, end = value("startTime", "start_time") or row.get("timestamp"), value("endTime", "end_time")
    usage = _object(value("usageDetails", "usage_details")) or _object(row.get("usage"))
    latency = _seconds(start, end) if end else row.get("latency")
    return {
        **_asked(_json(row.get("input")), _json(row.get("output"))),
        "id": row.get("id"),
        "model_version": row.get("model") or value("providedModelName", "provided_model_name"),
        "asked_at": start,
        "latency_s": latency if isinstance(latency, int | float) else None,
        "prompt_tokens": usage.get("input"),
        "completion_tokens": usage.get("output"),
        "parameters": _parameters(_object(value("modelParameters", "model_parameters"))),
        **_said(
            user=value("userId", "user_id"),
            conversation=value("sessionId", "session_id"),
            metadata=_json(row.get("metadata")),
        ),
    }


def _is_phoenix(row: Fields) -> bool:
    return ("span_kind" in row and ("context" in row or "context.span_id" in row)) or any(
        name.startswith(("attributes.openinference", "attributes.llm.")) for name in row
    )


def _phoenix(row: Fields) -> Fields:
    flat = {name.removeprefix("attributes."): value for name, value in _flat(row).items()}
    kind = flat.get("span_kind") or flat.get("openinference.span.kind")
    if kind != "LLM":
        return _aside(f"a span of kind {kind}")
    asked, said = _messages_of(flat, "llm.input_messages"), _messages_of(flat, "llm.output_messages")
    parameters = _object(_json(flat.get("llm.invocation_parameters")))
    return {
        **_asked(asked or _json(flat.get("input.value")), said[-1] if said else _json(flat.get("output.value"))),
        "id": flat.get("context.span_id"),
        "model_version": flat.get("llm.model_name"),
        "asked_at": flat.get("start_time"),
        "latency_s": _seconds(flat.get("start_time"), flat.get("end_time")),
        "prompt_tokens": flat.get("llm.token_count.prompt"),
        "completion_tokens": flat.get("llm.token_count.completion"),
        "parameters": _parameters(parameters),
        **_said(
            user=flat.get("user.id"),
            conversation=flat.get("session.id"),
            metadata=_json(flat.get("metadata")) or _below(flat, "metadata."),
        ),
    }


_LOGS: tuple[tuple[Callable[[Fields], bool], Callable[[Fields], Fields]], ...] = (
    (_is_stored_completion, _stored_completion),
    (_is_litellm, _litellm),
    (_is_phoenix, _phoenix),
    (_is_langfuse, _langfuse),
)


def _asked(request: object, response: object) -> Fields:
    return {
        "question": question_in(request),
        "answer": answer_in(response),
        "messages": conversation_in(request),
        "of_others": True,
    }


def _aside(what: str) -> Fields:
    return {"question": "", "answer": "", "aside": what}


def _said(*, user: object = None, conversation: object = None, metadata: object = None) -> Fields:
    """What the client said of itself, as far as it is text."""
    told = metadata if isinstance(metadata, Mapping) else {}
    texts = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    return {
        "user_name": str(user) if user else None,
        "conversation_name": str(conversation) if conversation else texts.get("conversation_id"),
        "metadata": texts,
    }


def _parameters(given: Mapping[str, Any]) -> Parameters | None:
    """The parameters of a request, where its most tokens are known; what it leaves out is as OpenAI's API has it."""
    limit = given.get("max_completion_tokens") or given.get("max_tokens")
    stop = given.get("stop") or ()
    values = {name: given[name] for name in ("top_p", "seed") if given.get(name) is not None}
    temperature = given.get("temperature")
    values["temperature"] = 1.0 if temperature is None else temperature
    try:
        return Parameters(max_tokens=limit, stop=(stop,) if isinstance(stop, str) else stop, **values)  # type: ignore[arg-type]
    except ValidationError:
        return None


def _finished(completion: object) -> bool | None:
    choices = completion.get("choices") if isinstance(completion, Mapping) else None
    return False if first_choice(choices).get("finish_reason") == "length" else None


def _seconds(start: object, end: object) -> float | None:
    try:
        took = (_TIME.validate_python(end) - _TIME.validate_python(start)).total_seconds()
    except (ValidationError, TypeError):  # the second: one of them has no zone
        return None
    return max(0.0, took)


def _json(value: object) -> Any:
    """What a text holds as JSON, where it does; some exports hold objects as texts."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _object(value: object) -> Mapping[str, Any]:
    value = _json(value)
    return value if isinstance(value, Mapping) else {}


def _flat(value: object, name: str = "") -> Fields:
    """The values of nested objects and lists under dotted names."""
    if isinstance(value, Mapping):
        parts = ((f"{name}.{key}" if name else str(key), each) for key, each in value.items())
    elif isinstance(value, list):
        parts = ((f"{name}.{i}", each) for i, each in enumerate(value))
    else:
        return {name: value}
    return {inner: each for key, part in parts for inner, each in _flat(part, key).items()}


def _below(flat: Fields, prefix: str) -> Fields:
    return {name.removeprefix(prefix): value for name, value in flat.items() if name.startswith(prefix)}


def _messages_of(flat: Fields, name: str) -> list[Fields]:
    """OpenInference's messages, in order."""
    found: dict[int, Fields] = {}
    for key, value in _below(flat, f"{name}.").items():
        number, _, field = key.partition(".")
        if number.isdecimal():
            found.setdefault(int(number), {})[field.removeprefix("message.")] = value
    return [_message(found[number]) for number in sorted(found)]


def _message(fields: Fields) -> Fields:
    parts = [
        value for name, value in fields.items() if name.endswith("message_content.text") and isinstance(value, str)
    ]
    calls = [
        {"function": {"name": value, "arguments": fields.get(name.removesuffix("name") + "arguments") or ""}}
        for name, value in fields.items()
        if name.endswith("tool_call.function.name")
    ]
    content = fields.get("content")
    return {
        "role": fields.get("role"),
        "content": "\n".join(parts) if content is None and parts else content,
        "tool_calls": calls,
    }
