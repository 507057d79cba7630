"""The service's OpenAPI document, served at ``/openapi.json``."""

from __future__ import annotations

from typing import Any

from serving.chat_request import (
    MOST_CHOICES,
    MOST_KEY_CHARACTERS,
    MOST_PAIRS,
    MOST_STOP_CHARACTERS,
    MOST_STOPS,
    MOST_TOP_LOGPROBS,
    MOST_VALUE_CHARACTERS,
    NEUTRAL,
    PASSED_ON,
    ROLES,
)
from serving.feedback_request import MOST_COMMENT_CHARACTERS, MOST_CORRECTION_CHARACTERS, MOST_ID_CHARACTERS

_STATUSES = {
    "400": "The request is not JSON, or holds what cannot be honoured; `param` names it.",
    "401": "No API key, or one that is unknown, expired or revoked.",
    "404": "There is no such model, or no such record of this key.",
    "408": "The body took too long to arrive.",
    "429": "A limit of the key is reached, or too many requests wait; `Retry-After` says when to ask again.",
    "502": "The server behind the service failed, has no such model, or does not let it in.",
    "503": "The answer's record or the keys are out of reach, or the service is stopping.",
    "504": "The model took too long.",
}


def document(model_name: str, *, upstream: str | None = None) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a service of that model.

    Args:
        upstream: another server's name for it, where the service passes requests on to that.
    """
    chat = {
        "summary": "Answer a conversation",
        "operationId": "createChatCompletion",
        "requestBody": {"required": True, "content": _json(_ref("ChatRequest"))},
        "responses": {
            "200": {
                "description": "The answer, or with `stream` its server-sent events: a chunk each, then `[DONE]`.",
                "headers": {
                    "x-ontopic-record-id": _header("The ids of the stored records, with commas between choices."),
                    "x-ontopic-model-version": _header("The version that answered."),
                    "x-ontopic-guard": _header("An enforced guard's: passed, question, answer, unjudged or down."),
                    "x-ontopic-max-tokens": _header(
                        "The most tokens of an answer, where the request asks for more than that."
                    ),
                },
                "content": {**_json(_ref("ChatCompletion")), "text/event-stream": {"schema": {"type": "string"}}},
            },
            **_errors(*_STATUSES),
        },
    }
    paths = {
        "/v1/chat/completions": {"post": chat},
        "/v1/feedback": {"post": _give_feedback()},
        "/v1/answers/{record_id}": {"get": _answer()},
        "/v1/models": {"get": _get("listModels", "The one model that is served", content=_json(_ref("Models")))},
        "/v1/models/{model}": {"get": _one_model(model_name)},
        "/metrics": {"get": _get("readMetrics", "What is counted for Prometheus", content=_text())},
        "/openapi.json": {"get": _get("readDocument", "This document", content=_json({"type": "object"}))},
        "/healthz": {"get": _open("isAlive", "Whether the process lives")},
        "/readyz": {"get": _open("isReady", "Whether it can answer, and the traffic store can be written", "503")},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "OnTopic", "version": "1", "description": "One model behind an OpenAI-compatible API."},
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "ChatRequest": _chat_request(model_name, upstream),
                "Message": _message(),
                "ChatCompletion": _chat_completion(),
                "Feedback": _feedback(),
                "Logprobs": _logprobs(),
                "Model": _model(),
                "Models": _models(),
                "Error": _error(),
            },
        },
    }


def _give_feedback() -> dict[str, Any]:
    return {
        "summary": "Say what somebody thought of an answer",
        "operationId": "giveFeedback",
        "requestBody": {"required": True, "content": _json(_ref("Feedback"))},
        "responses": {
            "200": {"description": "It is kept.", "content": _json({"type": "object"})},
            **_errors("400", "401", "404", "408", "429", "503"),
        },
    }


def _answer() -> dict[str, Any]:
    text, maybe, score = {"type": "string"}, {"type": ["string", "null"]}, {"type": ["number", "null"]}
    guard: dict[str, Any] = {"mode": {"enum": ["observe", "enforce"]}, "stage": {"enum": ["", "question", "answer"]}}
    guard |= {"scope_score": score, "answer_score": score, "failure": text}
    verdict: dict[str, Any] = {"outcome": {"enum": ["pass", "fail", "unjudged"]}, "score": score, "cause": maybe}
    verdict |= {"explanation": text, "judge_id": text}
    content = _all_of(
        {
            "object": {"const": "answer"},
            "record_id": text,
            "model_version": text,
            "guard": {"anyOf": [_all_of(guard), {"type": "null"}]},
            "verdict": {"anyOf": [_all_of(verdict), {"type": "null"}]},
            "beside": {"type": "array", "items": _all_of({"model_version": text, "answer": text})},
            "challenger": maybe,
        }
    )
    get = _get(
        "readAnswer", "What guard, judge and a challenger in the shadow made of an answer", content=_json(content)
    )
    record_id = {"name": "record_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return get | {"parameters": [record_id], "responses": get["responses"] | _errors("404", "429")}


def _chat_request(model_name: str, upstream: str | None) -> dict[str, Any]:
    stop = {"type": "string", "minLength": 1, "maxLength": MOST_STOP_CHARACTERS}
    whole = {"type": "integer", "minimum": 1}
    optional: dict[str, Any] = {
        "max_tokens": whole,
        "max_completion_tokens": whole,
        "temperature": {"type": "number", "minimum": 0, "maximum": 2} | ({} if upstream else {"default": 0}),
        "top_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
        "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        "stop": {"anyOf": [stop, {"type": "array", "maxItems": MOST_STOPS, "items": stop}]},
        "n": {"type": "integer", "minimum": 1, "maximum": MOST_CHOICES, "default": 1},
        "logprobs": {"type": "boolean", "default": False},
        "top_logprobs": {"type": "integer", "minimum": 0, "maximum": MOST_TOP_LOGPROBS},
        "stream": {"type": "boolean", "default": False},
        "stream_options": _object({"include_usage": {"type": "boolean"}, "include_obfuscation": {}}, []),
        "metadata": _metadata(),
        "user": {},
        "safety_identifier": {},
    }
    for name, values in NEUTRAL.items():
        any_value = values is None or (upstream is not None and name in PASSED_ON)
        optional[name] = {} if any_value else {"enum": list(values or ())}
    properties = {
        "model": {"enum": [model_name, upstream]} if upstream else {"const": model_name},
        "messages": {"type": "array", "minItems": 1, "items": _ref("Message"), "contains": _role("user")},
        **{name: {"anyOf": [schema, {"type": "null"}]} for name, schema in optional.items()},
    }
    return _object(properties, ["model", "messages"])


def _metadata() -> dict[str, Any]:
    text = {"type": "string", "maxLength": MOST_VALUE_CHARACTERS}
    names = {"maxLength": MOST_KEY_CHARACTERS}
    return {"type": "object", "maxProperties": MOST_PAIRS, "propertyNames": names, "additionalProperties": text}


def _message() -> dict[str, Any]:
    text = {"type": "string"}
    part = _object({"type": {"const": "text"}, "text": text}, ["type", "text"])
    content = {"anyOf": [text, {"type": "array", "items": part}]}
    role = {"enum": list(ROLES)}
    more: dict[str, Any] = {"name": {}, "tool_call_id": {}, "tool_calls": {}}
    return _object({"role": role, "content": content, **more}, ["role", "content"])


def _role(role: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"role": {"const": role}}, "required": ["role"]}


def _chat_completion() -> dict[str, Any]:
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    message = {"role": {"const": "assistant"}, "content": text, "refusal": {"type": "null"}}
    choice = {
        "index": count,
        "message": _all_of(message),
        "logprobs": {"anyOf": [_ref("Logprobs"), {"type": "null"}]},
        "finish_reason": {"enum": ["stop", "length", "content_filter"]},
    }
    return _all_of(
        {
            "id": text,
            "object": {"const": "chat.completion"},
            "created": count,
            "model": text,
            "choices": {"type": "array", "minItems": 1, "items": _all_of(choice)},
            "usage": _all_of({"prompt_tokens": count, "completion_tokens": count, "total_tokens": count}),
        }
    )


def _logprobs() -> dict[str, Any]:
    token = {
        "token": {"type": "string"},
        "logprob": {"type": "number", "maximum": 0},
        "bytes": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    }
    placed = _all_of({**token, "top_logprobs": {"type": "array", "items": _all_of(token)}})
    return _all_of({"content": {"type": "array", "items": placed}, "refusal": {"type": "null"}})


def _feedback() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["record_id", "thumb"],
        "additionalProperties": False,
        "properties": {
            "record_id": {"type": "string", "minLength": 1, "maxLength": MOST_ID_CHARACTERS},
            "thumb": {"enum": ["up", "down"]},
            "comment": {"type": "string", "maxLength": MOST_COMMENT_CHARACTERS},
            "correction": {
                "type": "string",
                "maxLength": MOST_CORRECTION_CHARACTERS,
                "description": "The answer that should have been given.",
            },
        },
    }


def _model() -> dict[str, Any]:
    text = {"type": "string"}
    model = {"id": text, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": text}
    return _all_of({**model, "version": text})


def _models() -> dict[str, Any]:
    return _all_of({"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}})


def _one_model(model_name: str) -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"const": model_name}}
    get = _get("retrieveModel", "The model that is served", content=_json(_ref("Model")))
    return get | {"parameters": [name], "responses": get["responses"] | _errors("404")}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    maybe = {"type": ["string", "null"]}
    kind = {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]}
    return _all_of({"error": _all_of({"message": text, "type": kind, "param": maybe, "code": maybe})})


def _get(name: str, summary: str, *, content: dict[str, Any]) -> dict[str, Any]:
    good = {"200": {"description": summary, "content": content}}
    return {"summary": summary, "operationId": name, "responses": good | _errors("401", "503")}


def _open(name: str, summary: str, *bad: str) -> dict[str, Any]:
    statuses = {status: {"description": summary, "content": _text()} for status in ("200", *bad)}
    return {"summary": summary, "operationId": name, "security": [], "responses": statuses}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: {"description": _STATUSES[status], "content": _json(_ref("Error"))} for status in statuses}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _all_of(properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has these properties, each of them, and no other."""
    return _object(properties, list(properties))


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
