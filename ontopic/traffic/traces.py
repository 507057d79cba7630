"""MLflow traces: a record as one, and a record out of one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ontopic.records import Record
from ontopic.traffic.chats import OURS, answer_in, conversation_in, json_line, known, question_in, rest

if TYPE_CHECKING:
    from mlflow.entities import Trace

_HEX_ID = re.compile("[0-9a-f]{32}")


def trace_line(record: Record) -> str:
    """A stored record as a trace in JSON, with one span."""
    from mlflow.entities import Span, SpanType, Trace, TraceData, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey

    assert record.asked_at is not None  # of a stored record  # noqa: S101
    otel_id = record.id if _HEX_ID.fullmatch(record.id) else hashlib.sha256(record.id.encode()).hexdigest()[:32]
    start_us = (record.asked_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    usage = {"input_tokens": record.prompt_tokens, "output_tokens": record.completion_tokens}
    usage["total_tokens"] = sum(usage.values())
    span = Span.from_dict(
        {
            "trace_id": base64.b64encode(bytes.fromhex(otel_id)).decode(),
            "span_id": base64.b64encode(bytes.fromhex(otel_id[:16])).decode(),
            "parent_span_id": None,
            "name": "chat",
            "start_time_unix_nano": start_us * 1000,
            "end_time_unix_nano": start_us * 1000 + round(record.latency_s * 1e9),
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                SpanAttributeKey.REQUEST_ID: json_line(f"tr-{otel_id}"),
                SpanAttributeKey.SPAN_TYPE: json_line(SpanType.CHAT_MODEL),
                SpanAttributeKey.INPUTS: json_line({"messages": record.request}),
                SpanAttributeKey.OUTPUTS: json_line(record.answer),
                SpanAttributeKey.CHAT_USAGE: json_line(usage),
                OURS: json_line(rest(record)),  # MLflow cuts a trace's own metadata at 250 characters
            },
            "links": [],
        }
    )
    info = TraceInfo(
        f"tr-{otel_id}",
        TraceLocation.from_experiment_id("0"),
        start_us // 1000,
        TraceState.OK,
        execution_duration=round(record.latency_s * 1000),
        trace_metadata=known(
            {
                TraceMetadataKey.TOKEN_USAGE: json_line(usage),
                TraceMetadataKey.TRACE_SESSION: record.conversation or None,
                TraceMetadataKey.TRACE_USER: record.user or None,
            }
        ),
        tags={TraceTagKey.TRACE_NAME: "chat"},
    )
    return Trace(info, TraceData([span])).to_json()


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
