"""Chat logs in OpenAI's shape: a record as one, and the shapes in which others write them."""

from __future__ import annotations

import json
from typing import Any, get_args

from ontopic.records import Record, Role

_ONLY_IF_KNOWN = {"parameters", "conversation", "user", "key", "metadata", "guard"}
_ROLES = {"developer": "system", "function": "tool"}  # as OpenAI's API calls some now, or did
OURS = "ontopic"
"""Under this key a chat log or a trace carries what only a record says."""


def chat_line(record: Record) -> str:
    """A record as a line of a chat log."""
    return json_line(
        {
            "messages": [*record.request, {"role": "assistant", "content": record.answer}],
            "metadata": record.metadata | {OURS: rest(record)},
        }
    )


def from_chat(row: dict[str, Any]) -> dict[str, Any]:
    """A chat log's row as fields of a record.

    Raises:
        ValueError: it holds no messages, or none of the user or the assistant.
    """
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("messages must be a list of messages")
    response, asked = row.get("response"), messages
    if response is None:
        if not messages or messages[-1].get("role") != "assistant":
            raise ValueError("messages must end with the assistant's, or stand beside a response")
        response, asked = messages[-1], messages[:-1]
    completion = response if isinstance(response, dict) and "choices" in response else {}
    usage = completion.get("usage") or row.get("usage") or {}
    metadata = row.get("metadata")
    told = metadata if isinstance(metadata, dict) else {}
    ours = told.get(OURS)
    fields = {
        "question": question_in(messages, ours),
        "answer": answer_in(response),
        "messages": conversation_in(asked),
        "id": row.get("id") or completion.get("id"),
        "model_version": row.get("model") or completion.get("model"),
        "asked_at": row.get("created") or completion.get("created"),
    }
    if isinstance(usage, dict):
        fields |= {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    if completion and first_choice(completion["choices"]).get("finish_reason") == "length":
        fields["finished"] = False
    if isinstance(ours, dict):
        return known(fields | ours)
    fields |= {"metadata": {name: value for name, value in told.items() if isinstance(value, str)}, "of_others": True}
    return known(fields | {"user_name": row.get("user"), "conversation_name": told.get("conversation_id")})


def question_in(inputs: object, ours: object = None) -> object:
    """The question in what a model was given: a text, messages, or a mapping that holds either; what we said of it
    comes first."""
    if isinstance(ours, dict) and "question" in ours:
        return ours["question"]
    if isinstance(inputs, dict):
        inputs = _value(inputs, "messages", "question", "query", "prompt", "input", "inputs", "request")
    if isinstance(inputs, list):
        asked = [each for each in inputs if isinstance(each, dict) and each.get("role") == "user"]
        if not asked:
            raise ValueError("messages must hold one of the user")
        return _content(asked[-1])
    return inputs


def conversation_in(inputs: object) -> list[dict[str, str]] | None:
    """The messages that a model was given, where there are more than the question, as ``messages_in`` has them."""
    messages = messages_in(inputs)
    return messages if messages and len(messages) > 1 else None


def messages_in(inputs: object) -> list[dict[str, str]] | None:
    """The messages that a model was given; ``None`` where one of them is not a text of the system, the user, the
    assistant or a tool."""
    if isinstance(inputs, dict):
        inputs = inputs.get("messages")
    if not isinstance(inputs, list):
        return None
    messages: list[dict[str, str]] = []
    for each in inputs:
        role, content = (each.get("role"), _content(each)) if isinstance(each, dict) else (None, None)
        role = _ROLES.get(role, role) if isinstance(role, str) else None
        if not isinstance(role, str) or role not in get_args(Role) or not isinstance(content, str):
            return None
        messages.append({"role": role, "content": content})
    return messages


def request_in(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says of the request around its question, as fields of a record; what only others write is left out."""
    parameters, conversation = row.get("parameters"), row.get("conversation")
    return {
        "messages": messages_in(row.get("messages")),
        "parameters": known(parameters) if isinstance(parameters, dict) and "max_tokens" in parameters else None,
        "conversation": conversation if isinstance(conversation, str) else None,
    }


def answer_in(outputs: object) -> object:
    """The answer in what a model gave: a text, a message, messages, a completion, or a mapping that holds one."""
    if isinstance(outputs, dict) and "choices" in outputs:
        outputs = first_choice(outputs["choices"]).get("message")
    if isinstance(outputs, dict) and "content" not in outputs:
        outputs = _value(outputs, "answer", "response", "output", "outputs", "text", "messages", "message")
    if isinstance(outputs, list) and outputs and isinstance(outputs[-1], dict):
        outputs = outputs[-1]
    return _content(outputs) if isinstance(outputs, dict) else outputs


def calls_in_words(calls: object) -> str | None:
    """An assistant's calls of tools, a line each; ``None`` where they are none."""
    given = (
        [call.get("function") if isinstance(call, dict) else None for call in calls] if isinstance(calls, list) else []
    )
    texts = [
        f"{call['name']}({call['arguments']})"
        for call in given
        if isinstance(call, dict) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), str)
    ]
    return "\n".join(texts) if texts and len(texts) == len(given) else None


def _content(message: dict[str, Any]) -> object:
    content = message.get("content")
    if content is None:
        return calls_in_words(message.get("tool_calls"))
    if isinstance(content, list):  # parts, of which only texts can be stored
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content


def _value(mapping: dict[str, Any], *names: str) -> object:
    """The value of the first name that is there; of a mapping of one, that one."""
    found = [mapping[name] for name in names if mapping.get(name) is not None]
    if not found and len(mapping) == 1:
        found = list(mapping.values())
    return found[0] if found else None


def first_choice(choices: object) -> dict[str, Any]:
    """The first of a completion's choices; empty where there is none."""
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def rest(record: Record) -> dict[str, Any]:
    """What a record says besides its answer and its request; of what is known of that."""
    said = record.model_dump(mode="json", exclude={"question", "answer", "messages"})
    said = {name: value for name, value in said.items() if value or name not in _ONLY_IF_KNOWN}
    asked = [message["content"] for message in record.request if message["role"] == "user"]
    if asked[-1:] != [record.question]:
        said["question"] = record.question
    if len(record.messages) == 1:
        said["messages"] = record.request
    return said


def known(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def json_line(value: object) -> str:
    """A value as JSON, on one line."""
    return json.dumps(value, ensure_ascii=False)
