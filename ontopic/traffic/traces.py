"""MLflow traces: a record as one, and a record out of one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ontopic.records import Record
from ontopic.traffic.chats import OURS, answer_in, conversation_in, json_line, known, question_in, rest

if TYPE_CHECKING:
    from mlflow.entities import Span, Trace

_HEX_ID = re.compile("[0-9a-f]{32}")
_MOST_PREVIEW, _MOST_TAG = 1000, 250
TRAFFIC = "chat"
"""What the traces of served traffic are called."""


def trace_line(record: Record) -> str:
    """A stored record as a trace in JSON, with one span."""
    return as_trace(record).to_json()


def trace_id(record_id: str) -> str:
    """The id of the trace of a record: the same each time, so that a record is one trace however often it is logged."""
    return f"tr-{_otel_id(record_id)}"


def as_trace(
    record: Record,
    *,
    experiment: str = "0",
    name: str = TRAFFIC,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Trace:
    """A record that has an id and a time as a trace with one span.

    Args:
        experiment: its id, in MLflow.
        tags: besides those that say which version answered, to whose key, and what the guard decided.
        metadata: of MLflow's own keys.
    """
    from mlflow.entities import Trace, TraceData, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    assert record.asked_at is not None  # of a stored record  # noqa: S101
    start_us = (record.asked_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    usage = {"input_tokens": record.prompt_tokens, "output_tokens": record.completion_tokens}
    usage["total_tokens"] = sum(usage.values())
    known_usage = json_line(usage) if usage["total_tokens"] else None
    said = {TraceTagKey.TRACE_NAME: name, **_tags(record), **(tags or {})}
    info = TraceInfo(
        trace_id(record.id),
        TraceLocation.from_experiment_id(experiment),
        start_us // 1000,
        TraceState.OK,
        execution_duration=round(record.latency_s * 1000) if record.latency_s else None,
        request_preview=storable(record.question, _MOST_PREVIEW),
        response_preview=storable(record.answer, _MOST_PREVIEW),
        trace_metadata=known(
            {
                TraceMetadataKey.TOKEN_USAGE: known_usage,
                TraceMetadataKey.TRACE_SESSION: record.conversation or None,
                TraceMetadataKey.TRACE_USER: record.user or record.key or None,
                **(metadata or {}),
            }
        ),
        tags={key: storable(value, _MOST_TAG) for key, value in said.items() if value},
    )
    return Trace(info, TraceData([_span(record, name, start_us=start_us, usage=known_usage)]))


def _span(record: Record, name: str, *, start_us: int, usage: str | None) -> Span:
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    otel_id = _otel_id(record.id)
    attributes = {
        SpanAttributeKey.REQUEST_ID: json_line(trace_id(record.id)),
        SpanAttributeKey.SPAN_TYPE: json_line(SpanType.CHAT_MODEL),
        SpanAttributeKey.INPUTS: json_line({"messages": record.request}),
        SpanAttributeKey.OUTPUTS: json_line(record.answer),
        SpanAttributeKey.MODEL: json_line(_model(record)) if record.model_version else None,
        SpanAttributeKey.CHAT_USAGE: usage,
        OURS: json_line(rest(record)),  # MLflow cuts a trace's own metadata at 250 characters
    }
    return Span.from_dict(
        {
            "trace_id": base64.b64encode(bytes.fromhex(otel_id)).decode(),
            "span_id": base64.b64encode(bytes.fromhex(otel_id[:16])).decode(),
            "parent_span_id": None,
            "name": name,
            "start_time_unix_nano": start_us * 1000,
            "end_time_unix_nano": start_us * 1000 + round(record.latency_s * 1e9),
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": known(attributes),
            "links": [],
        }
    )


def storable(text: str, most: int) -> str:
    """A text as any database takes it: without NUL and lone surrogates, cut with an ellipsis where it is longer."""
    text = text if len(text) <= most else text[: most - 1] + "\u2026"
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _otel_id(record_id: str) -> str:
    return record_id if _HEX_ID.fullmatch(record_id) else hashlib.sha256(record_id.encode()).hexdigest()[:32]


def _model(record: Record) -> str:
    return f"{record.registered_model} v{record.model_version}".strip()


def _tags(record: Record) -> dict[str, str]:
    """What one filters traces by."""
    guard, decision = record.guard, ""
    if guard is not None and guard.stage:
        decision = f"{'declined' if guard.mode == 'enforce' else 'would have declined'} the {guard.stage}"
    elif guard is not None:
        decision = "failed" if guard.failure else "let through"
    return {"model_version": record.model_version, "key": record.key, "guard": decision, "rollout": record.rollout}


def from_trace(row: dict[str, Any]) -> dict[str, Any]:
    """An MLflow trace as fields of a record.

    Raises:
        ValueError: it is not a trace that this MLflow can read, or has no root span.
    """
    from mlflow.entities import Trace
    from mlflow.exceptions import MlflowException
    from mlflow.tracing.constant import TraceMetadataKey

    try:
        trace = Trace.from_dict(row)
        root = next(span for span in trace.data.spans if span.parent_id is None)
        asked_at = datetime.fromtimestamp(trace.info.request_time / 1000, UTC)
    except StopIteration:
        raise ValueError("data: the trace has no root span") from None
    except (MlflowException, KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError) as error:
        raise ValueError(f"is not a trace that this MLflow can read ({type(error).__name__})") from None
    # Releases up to 0.1 wrote it into the trace's metadata.
    ours = root.attributes.get(OURS) or _object(trace.info.trace_metadata.get(OURS))
    fields = {
        "question": question_in(root.inputs, ours),
        "answer": answer_in(root.outputs),
        "messages": conversation_in(root.inputs),
        "id": trace.info.trace_id,
        "model_version": root.model_name,
        "asked_at": asked_at,
        "latency_s": (trace.info.execution_duration or 0) / 1000,
        **_usage_of(trace),
    }
    if isinstance(ours, dict) and ours:
        return known(fields | ours)
    told = trace.info.trace_metadata
    named = {
        "user_name": told.get(TraceMetadataKey.TRACE_USER),
        "conversation_name": told.get(TraceMetadataKey.TRACE_SESSION),
    }
    return known(fields | named | {"of_others": True})


def _usage_of(trace: Trace) -> dict[str, Any]:
    usage = trace.info.token_usage or {}
    return {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
