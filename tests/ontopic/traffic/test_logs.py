"""Logs of other tools, each in the shape that the tool writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from ontopic.errors import UserError
from ontopic.records import Parameters, Record
from ontopic.traffic.files import Imported, TrafficRow, import_traffic
from ontopic.traffic.identity import user_hash
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYSTEM = {"role": "system", "content": "You are a bank's assistant."}
FIRST = {"role": "user", "content": "How do I freeze my card?"}
ANSWER = {"role": "assistant", "content": "In the app, under Cards."}
SECOND = {"role": "user", "content": "And how long does that take?"}
REQUEST = [SYSTEM, FIRST, ANSWER, SECOND]
SAID = "It is frozen at once."
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1772366400,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 6, "total_tokens": 46},
}


def imported(tmp_path: Path, content: object, *, done: Imported, name: str = "log.jsonl") -> list[Record]:
    path = tmp_path / name
    if isinstance(content, pa.Table):
        parquet.write_table(content, path)
    elif isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content, indent=2))
    with TrafficStore(tmp_path / "store.db") as store:
        assert import_traffic(path, store, user_key=tmp_path / "user.key") == done
        return store.records()


def check(record: Record, tmp_path: Path, *, conversation: str = "s-7") -> None:
    """It holds all of the one request that every log here holds."""
    assert record.request == REQUEST
    assert (record.question, record.answer, record.asked_at) == (SECOND["content"], SAID, NOON)
    assert (record.prompt_tokens, record.completion_tokens) == (40, 6)
    assert record.user == user_hash("ann", tmp_path / "user.key")
    assert record.conversation == conversation
    assert record.metadata["channel"] == "web"


STORED: dict[str, Any] = COMPLETION | {
    "request_id": "req_ded8ab984ec4bf840f37566c1011c417",
    "tool_choice": None,
    "seed": 4944116822809979520,
    "top_p": 1.0,
    "temperature": 0.5,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "system_fingerprint": "fp_50cad350e4",
    "input_user": "ann",
    "service_tier": "default",
    "tools": None,
    "metadata": {"channel": "web", "conversation_id": "s-7"},
    "max_completion_tokens": 6,
    "response_format": None,
}
LISTED = [{"id": f"chatcmpl-1-{i}", "name": None, "content_parts": None} | each for i, each in enumerate(REQUEST)]


@pytest.mark.parametrize("messages", [LISTED, {"object": "list", "data": LISTED, "has_more": False}])
def test_openais_stored_completions(tmp_path: Path, messages: Any) -> None:
    page = {"object": "list", "data": [STORED | {"messages": messages}], "first_id": "chatcmpl-1", "has_more": False}
    (record,) = imported(tmp_path, page, done=Imported(1, 0, 0), name="page.json")
    check(record, tmp_path)
    assert (record.id, record.model_version, record.finish_reason) == ("chatcmpl-1", "gpt-4o-2024-08-06", "length")
    assert record.parameters == Parameters(max_tokens=6, temperature=0.5, seed=4944116822809979520)


SPEND_LOG: dict[str, Any] = {
    "request_id": "chatcmpl-1",
    "call_type": "acompletion",
    "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
    "spend": 0.0001,
    "total_tokens": 46,
    "prompt_tokens": 40,
    "completion_tokens": 6,
    "startTime": "2026-03-01T12:00:00+00:00",
    "endTime": "2026-03-01T12:00:01.500000+00:00",
    "completionStartTime": "2026-03-01T12:00:00.200000+00:00",
    "model": "gpt-4o",
    "model_id": "",
    "model_group": "gpt-4o",
    "custom_llm_provider": "openai",
    "api_base": "https://api.openai.com/v1/",
    "user": "default_user_id",
    "metadata": {"user_api_key_alias": "website", "user_api_key_team_id": None, "status": "success"},
    "cache_hit": "False",
    "request_tags": [],
    "end_user": "ann",
    "session_id": "s-7",
    "status": "success",
    "messages": {},
    "response": COMPLETION,
    "proxy_server_request": {
        "model": "gpt-4o",
        "messages": REQUEST,
        "max_tokens": 6,
        "user": "ann",
        "metadata": {"channel": "web"},
    },
}
LOGGED: dict[str, Any] = {
    "id": "chatcmpl-1",
    "trace_id": "t-1",
    "call_type": "acompletion",
    "status": "success",
    "total_tokens": 46,
    "prompt_tokens": 40,
    "completion_tokens": 6,
    "startTime": NOON.timestamp(),
    "endTime": NOON.timestamp() + 1.5,
    "response_time": 1.5,
    "model": "gpt-4o",
    "metadata": {
        "user_api_key_alias": "website",
        "user_api_key_end_user_id": "ann",
        "requester_metadata": {"channel": "web", "session_id": "s-7"},
    },
    "end_user": "ann",
    "messages": REQUEST,
    "response": COMPLETION,
    "model_parameters": {"max_tokens": 6, "stream": False},
}


@pytest.mark.parametrize("row", [SPEND_LOG, SPEND_LOG | {"response": json.dumps(COMPLETION)}, LOGGED])
def test_litellms_logs(tmp_path: Path, row: dict[str, Any]) -> None:
    embedding, failure = row | {"call_type": "aembedding"}, row | {"status": "failure", "response": {}}
    (record,) = imported(tmp_path, [embedding, row, failure], done=Imported(1, 0, 0, aside=2))
    check(record, tmp_path)
    assert (record.id, record.key, record.latency_s, record.finish_reason) == ("chatcmpl-1", "website", 1.5, "length")
    assert record.parameters == Parameters(max_tokens=6, temperature=1.0)


OBSERVATION: dict[str, Any] = {
    "id": "o-1",
    "traceId": "t-1",
    "type": "GENERATION",
    "name": "chat",
    "startTime": "2026-03-01T12:00:00.000Z",
    "endTime": "2026-03-01T12:00:01.500Z",
    "input": REQUEST,
    "output": {"role": "assistant", "content": SAID},
    "metadata": {"channel": "web", "scope": {"name": "langfuse-sdk"}},
    "model": "gpt-4o",
    "modelParameters": {"temperature": 0.5, "max_tokens": 6},
    "usageDetails": {"input": 40, "output": 6, "total": 46},
    "userId": "ann",
    "sessionId": "s-7",
}
BLOB: dict[str, Any] = {
    "id": "o-1",
    "trace_id": "t-1",
    "type": "GENERATION",
    "name": "chat",
    "start_time": "2026-03-01 12:00:00.000000",
    "end_time": "2026-03-01 12:00:01.500000",
    "input": json.dumps({"messages": REQUEST}),
    "output": SAID,
    "metadata": {"channel": "web"},
    "provided_model_name": "gpt-4o",
    "model_parameters": json.dumps({"temperature": 0.5, "max_tokens": 6}),
    "usage_details": {"input": 40, "output": 6},
    "user_id": "ann",
    "session_id": "s-7",
}


@pytest.mark.parametrize("row", [OBSERVATION, BLOB])
def test_langfuses_observations(tmp_path: Path, row: dict[str, Any]) -> None:
    span = row | {"id": "o-2", "type": "SPAN", "input": None}
    (record,) = imported(tmp_path, [span, row], done=Imported(1, 0, 0, aside=1))
    check(record, tmp_path)
    assert (record.id, record.model_version, record.latency_s) == ("o-1", "gpt-4o", 1.5)
    assert record.parameters == Parameters(max_tokens=6, temperature=0.5)


def test_langfuses_traces(tmp_path: Path) -> None:
    trace = {
        "id": "t-1",
        "timestamp": "2026-03-01T12:00:00.000Z",
        "name": "chat",
        "userId": "ann",
        "sessionId": None,
        "input": {"messages": REQUEST},
        "output": SAID,
        "metadata": {"channel": "web"},
        "latency": 1.5,
        "tags": [],
        "usage": {"input": 40, "output": 6},
        "observations": [OBSERVATION],
    }
    (record,) = imported(tmp_path, trace, done=Imported(1, 0, 0), name="trace-t-1.json")
    check(record, tmp_path, conversation=record.conversation)
    assert (record.id, record.latency_s, len(record.conversation)) == ("t-1", 1.5, 32)


ATTRIBUTES: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4o",
    "llm.invocation_parameters": json.dumps({"max_tokens": 6, "temperature": 0.5}),
    "llm.token_count.prompt": 40,
    "llm.token_count.completion": 6,
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": SAID,
    "session.id": "s-7",
    "user.id": "ann",
    "metadata": json.dumps({"channel": "web"}),
    "input.value": "{}",
    **{f"llm.input_messages.{i}.message.role": each["role"] for i, each in enumerate(REQUEST)},
    **{f"llm.input_messages.{i}.message.content": each["content"] for i, each in enumerate(REQUEST)},
}
SPAN: dict[str, Any] = {
    "name": "ChatCompletion",
    "context": {"trace_id": "t-1", "span_id": "sp-1"},
    "span_kind": "LLM",
    "parent_id": None,
    "start_time": "2026-03-01T12:00:00+00:00",
    "end_time": "2026-03-01T12:00:01.500000+00:00",
    "status_code": "OK",
    "attributes": ATTRIBUTES,
    "events": [],
}
NESTED = SPAN | {
    "attributes": {
        "llm": {
            "model_name": "gpt-4o",
            "input_messages": [
                {
                    "message": {
                        "role": each["role"],
                        "contents": [{"message_content": {"text": each["content"]}}],
                    }
                }
                for each in REQUEST
            ],
            "output_messages": [{"message": {"role": "assistant", "content": SAID}}],
            "invocation_parameters": '{"max_tokens": 6, "temperature": 0.5}',
            "token_count": {"prompt": 40, "completion": 6},
        },
        "session": {"id": "s-7"},
        "user": {"id": "ann"},
        "metadata": {"channel": "web"},
    }
}


@pytest.mark.parametrize("row", [SPAN, NESTED], ids=["flat", "nested"])
def test_phoenixs_spans(tmp_path: Path, row: dict[str, Any]) -> None:
    retriever = row | {"span_kind": "RETRIEVER", "attributes": {}}
    (record,) = imported(tmp_path, [retriever, row], done=Imported(1, 0, 0, aside=1))
    check(record, tmp_path)
    assert (record.id, record.model_version, record.latency_s) == ("sp-1", "gpt-4o", 1.5)
    assert record.parameters == Parameters(max_tokens=6, temperature=0.5)


def test_phoenixs_table_of_spans(tmp_path: Path) -> None:
    def messages(turns: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{"message.role": each["role"], "message.content": each["content"]} for each in turns]

    row = {
        "context.span_id": "sp-1",
        "context.trace_id": "t-1",
        "name": "ChatCompletion",
        "span_kind": "LLM",
        "parent_id": None,
        "start_time": NOON,
        "end_time": NOON,
        "attributes.llm.model_name": "gpt-4o",
        "attributes.llm.input_messages": messages(REQUEST),
        "attributes.llm.output_messages": messages([{"role": "assistant", "content": SAID}]),
        "attributes.llm.invocation_parameters": json.dumps({"max_tokens": 6}),
        "attributes.llm.token_count.prompt": 40.0,
        "attributes.llm.token_count.completion": 6.0,
        "attributes.session.id": "s-7",
        "attributes.user.id": "ann",
        "attributes.metadata": {"channel": "web"},
    }
    chain = {"context.span_id": "sp-0", "name": "chain", "span_kind": "CHAIN", "start_time": NOON, "end_time": NOON}
    table = pa.Table.from_pylist([row, dict.fromkeys(row) | chain])
    (record,) = imported(tmp_path, table, done=Imported(1, 0, 0, aside=1), name="spans.parquet")
    check(record, tmp_path)


def test_calls_of_tools_are_kept_in_words(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "balance", "arguments": "{}"}}
    turns = [FIRST, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "42"}]
    attributes = {
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": FIRST["content"],
        "llm.input_messages.1.message.role": "assistant",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.name": "balance",
        "llm.input_messages.1.message.tool_calls.0.tool_call.function.arguments": "{}",
        "llm.input_messages.2.message.role": "tool",
        "llm.input_messages.2.message.content": "42",
        "llm.output_messages.0.message.content": SAID,
    }
    rows = [LOGGED | {"messages": turns}, SPAN | {"attributes": attributes}]
    for record in imported(tmp_path, rows, done=Imported(2, 0, 0)):
        assert [message.content for message in record.messages] == [FIRST["content"], "balance({})", "42"]


def test_the_records_of_a_log_that_names_no_conversation_share_their_turns(tmp_path: Path) -> None:
    rows = [LOGGED | {"id": str(i), "messages": REQUEST[:n], "metadata": {}} for i, n in enumerate((2, 4))]
    rows[0] |= {"response": {"choices": [{"message": ANSWER}]}}
    first, second = sorted(imported(tmp_path, rows, done=Imported(2, 0, 0)), key=lambda record: record.id)
    assert first.conversation == second.conversation != ""
    with TrafficStore(tmp_path / "store.db") as store, store._engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT messages FROM traffic").scalars().all() == [None, None]


def test_a_log_without_any_answer_is_the_users_to_mend(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_text(json.dumps(SPAN | {"span_kind": "RETRIEVER"}))
    with (
        TrafficStore(tmp_path / "store.db") as store,
        pytest.raises(UserError, match="but such as a span of kind RETRIEVER"),
    ):
        import_traffic(path, store)


def test_names_are_not_kept_where_there_is_no_key_to_hash_them(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps(LOGGED))
    with TrafficStore(tmp_path / "store.db") as store:
        import_traffic(tmp_path / "log.jsonl", store)
        assert store.records()[0].user == ""


ALIEN: tuple[Any, ...] = (
    *(None, True, -1, 1e400, float("nan"), 1 << 70, "", "x", "{", "[[]]", "9999-12-31"),
    *([], [None], [[1]], {}, {"": {}}),
)


def with_alien(value: Any, alien: Any) -> Iterator[Any]:
    """The value with each of its parts in turn replaced."""
    yield alien
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        for part in with_alien(value[key], alien):
            copy = value.copy()
            copy[key] = part
            yield copy


@pytest.mark.parametrize("row", [STORED | {"messages": LISTED[:2]}, SPEND_LOG, LOGGED, OBSERVATION, BLOB, SPAN, NESTED])
def test_a_row_that_is_odd_in_any_part_is_read_or_malformed(row: dict[str, Any], tmp_path: Path) -> None:
    odds = [odd for alien in ALIEN for odd in with_alien(row, alien) if isinstance(odd, dict)]
    assert len(odds) > 200
    for odd in odds:
        with suppress(ValidationError):
            TrafficRow.model_validate(odd).record(tmp_path / "user.key")
