"""Traffic in files: JSONL, Parquet, OpenAI-style chat logs and MLflow traces, read and written in bounded memory."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from ontopic.data.rows import stream_rows
from ontopic.errors import UserError
from ontopic.progress import progress
from ontopic.records import Record
from ontopic.traffic.store import TrafficStore

if TYPE_CHECKING:
    from mlflow.entities import Trace

Format = Literal["jsonl", "parquet", "openai", "mlflow"]
_SUFFIXES = (".jsonl", ".json", ".parquet")
_BATCH = 2000
_ROW_GROUP = 10_000
_MAX_CHARACTERS = 1 << 20  # the longest request that is served
_MAX_TOKENS = (1 << 31) - 1  # what PostgreSQL's integer holds
_OURS = "ontopic"  # under it a chat log or a trace carries what only a record says
_HEX_ID = re.compile("[0-9a-f]{32}")
_Text = Annotated[str, Field(max_length=_MAX_CHARACTERS)]
_Count = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]


class TrafficRow(BaseModel):
    """A row of a file of traffic: a record, or a chat (it has ``messages``), or an MLflow trace (``info``, ``data``).

    Of a chat, the question is the last message of the user, the answer the ``response`` or else the last message,
    which the assistant has then written. Of a trace, they are the inputs and outputs of the root span.

    Attributes:
        id: derived from the content where there is none.
        asked_at: taken as UTC where it has no zone; the time of the import where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    question: _Text
    answer: _Text
    in_scope: StrictBool | None = None
    id: str = Field("", max_length=64, coerce_numbers_to_str=True)
    model_version: str = Field("", max_length=200, coerce_numbers_to_str=True)
    asked_at: datetime | None = None
    latency_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    finished: StrictBool = True
    redacted: dict[Literal["card", "iban", "email", "phone"], _Count] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _as_record(cls, row: dict[str, Any]) -> dict[str, Any]:
        if "messages" in row:
            return _chat(row)
        if "info" in row and "data" in row:
            return _trace(row)
        return {name: value for name, value in row.items() if value is not None}

    @field_validator("redacted", mode="before")
    @classmethod
    def _of_those_that_occur(cls, counts: object) -> object:
        return {kind: n for kind, n in counts.items() if n} if isinstance(counts, dict) else counts

    @field_validator("id", "model_version")
    @classmethod
    def _without_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("must not hold a NUL")
        return text

    @field_validator("asked_at")
    @classmethod
    def _in_utc(cls, time: datetime | None) -> datetime | None:
        try:
            return time.astimezone(UTC) if time and time.tzinfo else time
        except OverflowError:
            raise ValueError("must be a time of the years 1 to 9999 in UTC") from None

    def record(self) -> Record:
        """The record that the row holds."""
        return Record(**dict(self))


@dataclass(frozen=True)
class Imported:
    """What came of a file: rows that were stored, that the store had already, and that were left out as malformed."""

    stored: int
    known: int
    skipped: int


def import_traffic(source: Path, store: TrafficStore, *, skip_bad: bool = False) -> Imported:
    """Store the rows of a file of any length, after all of them were checked.

    Rows are stored some thousand at a time. An import that was stopped is taken up by another one of the same file:
    what is stored already, by its id, is left as it is.

    Args:
        source: JSONL or Parquet with the fields of ``Record``; or JSONL of chats or of MLflow traces.
        skip_bad: leave out malformed rows instead of stopping.

    Raises:
        UserError: the file can't be read, or (without ``skip_bad``) a row is malformed; nothing is stored then.
    """
    if source.suffix.lower() not in _SUFFIXES or not source.is_file():
        raise UserError(f"{source}: is no file of traffic; give an existing .jsonl or .parquet file")
    rows = stream_rows(source, TrafficRow, skip_bad=skip_bad)
    left, stored = iter(rows), 0
    with progress("import", rows.n, unit="records") as advance:
        while batch := list(islice(left, _BATCH)):
            stored += store.add_many(row.record() for row in batch)
            advance(len(batch))
    return Imported(stored, rows.n - stored, rows.skipped)


def export_traffic(store: TrafficStore, out: Path, *, to: Format | None = None) -> int:
    """Write all records in order of time; the file appears when it is whole.

    Args:
        to: the format; where ``None``, Parquet for a name that ends so, else JSONL.

    Returns:
        How many records were written.

    Raises:
        UserError: the file can't be written.
    """
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise UserError(f"{out}: cannot be written; give a file in an existing folder")
    to = to or ("parquet" if out.suffix.lower() == ".parquet" else "jsonl")
    with progress("export", store.count(), unit="records") as advance, _written_whole(out) as part:
        if to == "parquet":
            return _write_parquet(store.stream(), part, advance=advance)
        line = {"jsonl": _row_line, "openai": _chat_line, "mlflow": _trace_line}[to]
        return _write_lines(store.stream(), part, advance=advance, line=line)


@contextmanager
def _written_whole(out: Path) -> Iterator[Path]:
    part = out.with_name(f".{out.name}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); free the disk, or give another file") from error
    finally:
        part.unlink(missing_ok=True)


def _write_lines(
    records: Iterable[Record], part: Path, *, advance: Callable[[int], object], line: Callable[[Record], str]
) -> int:
    n = 0
    with part.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(line(record) + "\n")
            n += 1
            advance(1)
    return n


def _write_parquet(records: Iterator[Record], part: Path, *, advance: Callable[[int], object]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    texts = [(name, pa.string()) for name in ("question", "answer", "id", "model_version")]
    counts = pa.struct([(kind, pa.int32()) for kind in ("card", "iban", "email", "phone")])
    schema = pa.schema(
        [
            *texts,
            ("in_scope", pa.bool_()),
            ("asked_at", pa.timestamp("us", tz="UTC")),
            ("latency_s", pa.float64()),
            ("prompt_tokens", pa.int32()),
            ("completion_tokens", pa.int32()),
            ("finished", pa.bool_()),
            ("redacted", counts),
        ]
    )
    n = 0
    with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        while group := list(islice(records, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([record.model_dump() for record in group], schema))
            n += len(group)
            advance(len(group))
    return n


def _row_line(record: Record) -> str:
    return _json({"question": record.question, "answer": record.answer} | _rest(record))


def _chat_line(record: Record) -> str:
    return _json(
        {
            "messages": [
                {"role": "user", "content": record.question},
                {"role": "assistant", "content": record.answer},
            ],
            "metadata": {_OURS: _rest(record)},
        }
    )


def _trace_line(record: Record) -> str:
    from mlflow.entities import Span, SpanType, Trace, TraceData, TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey

    assert record.asked_at is not None  # of a stored record  # noqa: S101
    otel_id = record.id if _HEX_ID.fullmatch(record.id) else hashlib.sha256(record.id.encode()).hexdigest()[:32]
    start_us = (record.asked_at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    messages = [{"role": "user", "content": record.question}]
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
                SpanAttributeKey.REQUEST_ID: _json(f"tr-{otel_id}"),
                SpanAttributeKey.SPAN_TYPE: _json(SpanType.CHAT_MODEL),
                SpanAttributeKey.INPUTS: _json({"messages": messages}),
                SpanAttributeKey.OUTPUTS: _json(record.answer),
                SpanAttributeKey.CHAT_USAGE: _json(usage),
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
        trace_metadata={TraceMetadataKey.TOKEN_USAGE: _json(usage), _OURS: _json(_rest(record))},
        tags={TraceTagKey.TRACE_NAME: "chat"},
    )
    return Trace(info, TraceData([span])).to_json()


def _rest(record: Record) -> dict[str, Any]:
    """What a record says besides its texts."""
    return record.model_dump(mode="json", exclude={"question", "answer"})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    """A chat log's row as fields of a record."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("messages must be a list of messages")
    response = row.get("response")
    if response is None:
        if not messages or messages[-1].get("role") != "assistant":
            raise ValueError("messages must end with the assistant's, or stand beside a response")
        response = messages[-1]
    completion = response if isinstance(response, dict) and "choices" in response else {}
    usage = completion.get("usage") or row.get("usage") or {}
    fields = {
        "question": _question(messages),
        "answer": _answer(response),
        "id": row.get("id") or completion.get("id"),
        "model_version": row.get("model") or completion.get("model"),
        "asked_at": row.get("created") or completion.get("created"),
    }
    if isinstance(usage, dict):
        fields |= {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    if completion and _first(completion["choices"]).get("finish_reason") == "length":
        fields["finished"] = False
    metadata = row.get("metadata")
    ours = metadata.get(_OURS) if isinstance(metadata, dict) else None
    return _known(fields) | (_known(ours) if isinstance(ours, dict) else {})


def _trace(row: dict[str, Any]) -> dict[str, Any]:
    """An MLflow trace as fields of a record."""
    from mlflow.entities import Trace
    from mlflow.exceptions import MlflowException

    try:
        trace = Trace.from_dict(row)
        root = next(span for span in trace.data.spans if span.parent_id is None)
    except StopIteration:
        raise ValueError("data: the trace has no root span") from None
    except (MlflowException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"is no trace that this MLflow can read ({type(error).__name__})") from None
    fields = {
        "question": _question(root.inputs),
        "answer": _answer(root.outputs),
        "id": trace.info.trace_id,
        "model_version": root.model_name,
        "asked_at": datetime.fromtimestamp(trace.info.request_time / 1000, UTC),
        "latency_s": (trace.info.execution_duration or 0) / 1000,
        **_usage_of(trace),
    }
    ours = _object(trace.info.trace_metadata.get(_OURS))
    return _known(fields) | _known(ours)


def _usage_of(trace: Trace) -> dict[str, Any]:
    usage = trace.info.token_usage or {}
    return {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}


def _question(inputs: Any) -> Any:
    """The question in what a model was given: a text, messages, or a mapping that holds either."""
    if isinstance(inputs, dict):
        inputs = _value(inputs, "messages", "question", "query", "prompt", "input", "inputs", "request")
    if isinstance(inputs, list):
        asked = [each for each in inputs if isinstance(each, dict) and each.get("role") == "user"]
        if not asked:
            raise ValueError("messages must hold one of the user")
        return _content(asked[-1])
    return inputs


def _answer(outputs: Any) -> Any:
    """The answer in what a model gave: a text, a message, messages, a completion, or a mapping that holds one."""
    if isinstance(outputs, dict) and "choices" in outputs:
        outputs = _first(outputs["choices"]).get("message")
    if isinstance(outputs, dict) and "content" not in outputs:
        outputs = _value(outputs, "answer", "response", "output", "outputs", "text", "messages", "message")
    if isinstance(outputs, list) and outputs and isinstance(outputs[-1], dict):
        outputs = outputs[-1]
    return _content(outputs) if isinstance(outputs, dict) else outputs


def _content(message: dict[str, Any]) -> Any:
    content = message.get("content")
    if isinstance(content, list):  # parts, of which only texts can be stored
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content


def _value(mapping: dict[str, Any], *names: str) -> Any:
    """The value of the first name that is there; of a mapping of one, that one."""
    found = [mapping[name] for name in names if mapping.get(name) is not None]
    if not found and len(mapping) == 1:
        found = list(mapping.values())
    return found[0] if found else None


def _first(choices: Any) -> dict[str, Any]:
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
