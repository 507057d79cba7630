"""Traffic in files: JSONL, Parquet, OpenAI-style chat logs and MLflow traces, read and written in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, field_validator, model_validator

from ontopic.data.rows import stream_rows
from ontopic.errors import UserError
from ontopic.progress import progress
from ontopic.records import EARLIEST, MOST_AHEAD, Feedback, GuardDecision, Message, Parameters, Record
from ontopic.state.whole_file import check_writable, output_file
from ontopic.traffic.chats import chat_line, from_chat, json_line, request_in, rest
from ontopic.traffic.identity import NamesKey, begun_alike, conversation_id, user_hash
from ontopic.traffic.logs import from_log
from ontopic.traffic.store import TrafficStore
from ontopic.traffic.traces import from_trace, trace_line

Format = Literal["jsonl", "parquet", "openai", "mlflow"]
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_NAMES = {"user_name", "conversation_name", "of_others", "aside", "feedback"}  # of a row, not of a record
_BATCH = 2000
_ROW_GROUP = 10_000
_MAX_ID = 64
_MAX_CHARACTERS = 1 << 20  # the longest request that is served
_MAX_TOKENS = (1 << 31) - 1  # what PostgreSQL's integer holds
_Text = Annotated[str, Field(max_length=_MAX_CHARACTERS)]
_Count = Annotated[int, Field(ge=0, le=_MAX_TOKENS)]


class _Message(Message):
    content: _Text


class _Feedback(BaseModel):
    """What somebody thought of the row's answer, as in ``Feedback``."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    thumb: Literal["up", "down"]
    comment: _Text = ""
    correction: _Text = ""
    by: str = Field("", max_length=_MAX_ID)
    given_at: datetime

    @field_validator("given_at")
    @classmethod
    def _in_utc(cls, time: datetime) -> datetime:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


class TrafficRow(BaseModel):
    """A row of a file of traffic: a record (it has ``question`` and ``answer``), or a chat (it has ``messages``), or an
    MLflow trace (``info``, ``data``), or what another tool logs (``logs``).

    Of a chat, the question is the last message of the user, the answer the ``response`` or else the last message,
    which the assistant has then written. Of a trace, they are the inputs and outputs of the root span.

    Attributes:
        id: derived from the content where there is none; the sha256 of one that is longer than 64 characters, as some
            traces have.
        registered_model: that of the store which takes the row, where there is none.
        asked_at: taken as UTC where it has no zone; the time of the import where there is none.
        user_name, conversation_name: as another tool has them, before they are hashed.
        of_others: whether another tool wrote the row, which then may name no conversation that it is part of.
        aside: what the row is, where it is no answer to a request.
        feedback: what was thought of the answer, which needs the ``id`` of its record.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    question: _Text
    answer: _Text
    in_scope: StrictBool | None = None
    id: str = Field("", coerce_numbers_to_str=True)
    registered_model: str = Field("", max_length=200)
    model_version: str = Field("", max_length=200, coerce_numbers_to_str=True)
    asked_at: datetime | None = None
    latency_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    finished: StrictBool = True
    redacted: dict[Literal["card", "iban", "email", "phone"], _Count] = Field(default_factory=dict)
    messages: tuple[_Message, ...] = ()
    parameters: Parameters | None = None
    conversation: str = Field("", max_length=_MAX_ID)
    user: str = Field("", max_length=_MAX_ID)
    key: str = Field("", max_length=_MAX_ID)
    metadata: dict[str, str] = Field(default_factory=dict)
    guard: GuardDecision | None = None
    rollout: str = Field("", max_length=16)
    user_name: str = ""
    conversation_name: str = ""
    of_others: bool = False
    aside: str = ""
    feedback: tuple[_Feedback, ...] = ()

    @model_validator(mode="after")
    def _feedback_is_on_a_record(self) -> TrafficRow:
        if self.feedback and not self.id:
            raise ValueError("has feedback and no id, by which that is kept; give the record's")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_record(cls, row: dict[str, Any]) -> dict[str, Any]:
        is_record = "question" in row and "answer" in row
        if not is_record:
            if "info" in row and "data" in row:
                return from_trace(row)
            if (fields := from_log(row)) is not None:
                return fields
            if "messages" in row:
                return from_chat(row)
        return {name: value for name, value in (row | request_in(row)).items() if value is not None}

    @field_validator("redacted", mode="before")
    @classmethod
    def _of_those_that_occur(cls, counts: object) -> object:
        return {kind: n for kind, n in counts.items() if n} if isinstance(counts, dict) else counts

    @field_validator("feedback", mode="before")
    @classmethod
    def _as_exported(cls, given: object) -> object:
        """A column of that name in others' files may hold anything."""
        is_ours = isinstance(given, list) and all(isinstance(each, dict) and "thumb" in each for each in given)
        return given if is_ours else ()

    @field_validator("metadata", mode="before")
    @classmethod
    def _as_mapping(cls, metadata: object) -> object:
        if isinstance(metadata, dict):  # of others, who put more than texts there
            return {name: each if isinstance(each, str) else json.dumps(each) for name, each in metadata.items()}
        return json.loads(metadata) if isinstance(metadata, str) else metadata  # as Parquet holds it

    @field_validator("id", "registered_model", "model_version", "conversation", "user", "key")
    @classmethod
    def _without_nul(cls, text: str) -> str:
        if "\0" in text:
            raise ValueError("must not hold a NUL")
        return text

    @field_validator("id")
    @classmethod
    def _as_short(cls, text: str) -> str:
        return text if len(text) <= _MAX_ID else hashlib.sha256(text.encode()).hexdigest()

    @field_validator("asked_at")
    @classmethod
    def _in_utc(cls, time: datetime | None) -> datetime | None:
        if time is None:
            return None
        try:
            utc = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except OverflowError:
            utc = EARLIEST - timedelta(days=1)
        if utc < EARLIEST:
            raise ValueError(f"{time} is before {EARLIEST:%Y}, when nobody asked; give the true time, or none")
        if utc > datetime.now(UTC) + MOST_AHEAD:
            raise ValueError(f"{time} is more than a day after this import; give the true time, or none")
        return utc if time.tzinfo else time

    def record(self, user_key: NamesKey | None) -> Record:
        """The record that the row holds.

        Args:
            user_key: the key that names are hashed with, or its file; ``None`` to leave them out.
        """
        values = {name: value for name, value in self if name not in _NAMES}
        values["messages"] = [Message(role=each.role, content=each.content) for each in self.messages]
        if user_key is not None and self.user_name:
            values["user"] = user_hash(self.user_name, user_key)
        if user_key is not None and self.conversation_name:
            values["conversation"] = conversation_id(self.conversation_name, user_key)
        elif self.of_others:
            first = next((each.content for each in self.messages if each.role == "user"), self.question)
            values["conversation"] = begun_alike(self.key, values["user"], first=first)
        return Record(**values)


@dataclass(frozen=True)
class Imported:
    """What came of a file: rows that were stored, that the store had already, and that were left out as malformed.

    Attributes:
        others: those of the known whose id is that of another registered model's record, which stays as it is.
        aside: rows that are no answers to requests, such as another tool's spans.
        feedback: how much of what was thought of these records was taken over; newer feedback of the same key stays.
    """

    stored: int
    known: int
    skipped: int
    others: int = 0
    aside: int = 0
    feedback: int = 0


def import_traffic(
    source: Path, store: TrafficStore, *, skip_bad: bool = False, user_key: NamesKey | None = None
) -> Imported:
    """Store the rows of a file of any length, after all of them were checked.

    Rows are stored some thousand at a time. An import that was stopped is taken up by another one of the same file:
    what is stored already, by its id, is left as it is.

    Args:
        source: JSONL (packed with gzip or not) or Parquet with the fields of ``Record``; or of chats, of MLflow traces
            or of another tool's logs.
        store: of the registered model that a row is of where it does not say.
        skip_bad: leave out malformed rows instead of stopping.
        user_key: ``identity.names_key``, for the names in other tools' logs, which are not kept without it.

    Raises:
        UserError: the file can't be read, or (without ``skip_bad``) a row is malformed; nothing is stored then.
    """
    if not source.name.lower().removesuffix(".gz").endswith(_SUFFIXES) or not os.path.isfile(source):  # noqa: PTH113 (Path's fails on a name that is too long)
        raise UserError(f"{source}: is not a file of traffic; give an existing .jsonl or .parquet file")
    rows = stream_rows(source, TrafficRow, skip_bad=skip_bad)
    left, stored, others, aside, thought, what = iter(rows), 0, 0, 0, 0, ""
    with progress("import", rows.n, unit="records") as advance:
        while batch := list(islice(left, _BATCH)):
            answers = [row for row in batch if not row.aside]
            new = store.add_many(row.record(user_key) for row in answers)
            if new < len(answers):
                others += _of_others(answers, store)
            thought += _take_feedback(answers, store)
            stored, aside = stored + new, aside + len(batch) - len(answers)
            what = next((row.aside for row in batch if row.aside), what)
            advance(len(batch))
    if aside == rows.n:
        raise UserError(f"{source}: holds no answer of a model, but such as {what}; export its model calls")
    return Imported(stored, rows.n - stored - aside, rows.skipped, others, aside, thought)


def _of_others(batch: Iterable[TrafficRow], store: TrafficStore) -> int:
    """How many of these rows have an id that is stored for another registered model than theirs."""
    wanted = {row.id: row.registered_model or store.registered_model or "" for row in batch if row.id}
    return sum(model != wanted[i] for i, model in store.models_of(wanted).items())


def _take_feedback(batch: Iterable[TrafficRow], store: TrafficStore) -> int:
    """Keep what was thought of the records of these rows, but for ids that are another registered model's."""
    rows = [row for row in batch if row.feedback]
    models = store.models_of(row.id for row in rows)
    own = [row for row in rows if models.get(row.id) == (row.registered_model or store.registered_model or "")]
    return store.add_feedback(*(Feedback(record_id=row.id, **dict(each)) for row in own for each in row.feedback))


def export_traffic(store: TrafficStore, out: Path, *, to: Format | None = None) -> int:
    """Write all records in order of time; the file appears when it is whole, a device or pipe gets them at the end.

    Args:
        to: the format; where ``None``, Parquet for a name that ends so, else JSONL.

    Returns:
        How many records were written.

    Raises:
        UserError: the file can't be written.
    """
    check_writable(out)
    to = to or ("parquet" if out.suffix.lower() == ".parquet" else "jsonl")
    with progress("export", store.count(), unit="records") as advance, output_file(out) as part:
        if to == "parquet":
            return _write_parquet(_rows(store), part, advance=advance)
        line = {"openai": chat_line, "mlflow": trace_line}.get(to)
        lines = map(_row_line, _rows(store)) if line is None else map(line, store.stream())
        return _write_lines(lines, part, advance=advance)


_Given = list[dict[str, Any]]


def _rows(store: TrafficStore) -> Iterator[tuple[Record, _Given]]:
    """The records in order of time, each with what was thought of it, the newest first."""
    records = store.stream()
    while batch := list(islice(records, _BATCH)):
        given: dict[str, _Given] = defaultdict(list)
        for each in store.feedback([record.id for record in batch]):
            given[each.record_id].append(each.model_dump(exclude={"record_id"}))
        yield from ((record, given[record.id]) for record in batch)


def _write_lines(lines: Iterable[str], part: Path, *, advance: Callable[[int], object]) -> int:
    n = 0
    with part.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            n += 1
            advance(1)
    return n


def _write_parquet(given: Iterator[tuple[Record, _Given]], part: Path, *, advance: Callable[[int], object]) -> int:
    import pyarrow as pa
    from pyarrow import parquet

    texts = [(name, pa.string()) for name in ("question", "answer", "id", "registered_model", "model_version")]
    counts = pa.struct([(kind, pa.int32()) for kind in ("card", "iban", "email", "phone")])
    sampled = [("temperature", pa.float64()), ("top_p", pa.float64()), ("seed", pa.int64())]
    parameters = pa.struct([("max_tokens", pa.int32()), *sampled, ("stop", pa.list_(pa.string()))])
    named = [(name, pa.string()) for name in ("mode", "stage", "judge_id", "withheld", "failure")]
    guard = pa.struct([*named, ("scope_score", pa.float64()), ("answer_score", pa.float64())])
    said = [(name, pa.string()) for name in ("thumb", "comment", "correction", "by")]
    feedback = pa.struct([*said, ("given_at", pa.timestamp("us", tz="UTC"))])
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
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("parameters", parameters),
            ("conversation", pa.string()),
            ("user", pa.string()),
            ("key", pa.string()),
            ("metadata", pa.string()),
            ("guard", guard),
            ("feedback", pa.list_(feedback)),
            ("rollout", pa.string()),
        ]
    )
    n = 0
    with parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        while group := list(islice(given, _ROW_GROUP)):
            rows = [
                record.model_dump() | {"metadata": json.dumps(record.metadata), "feedback": thought}
                for record, thought in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            n += len(group)
            advance(len(group))
    return n


def _row_line(row: tuple[Record, _Given]) -> str:
    record, thought = row
    messages = {"messages": record.request} if record.messages else {}
    given = {"feedback": [each | {"given_at": each["given_at"].isoformat()} for each in thought]} if thought else {}
    return json_line({"question": record.question, "answer": record.answer} | messages | rest(record) | given)
