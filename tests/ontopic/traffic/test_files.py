"""Traffic in files: what goes out comes in again, in every format, in bounded memory, and never twice."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
from pyarrow import parquet

from ontopic.errors import UserError
from ontopic.records import Message, Parameters, Record
from ontopic.traffic.files import Format, Imported, export_traffic, import_traffic
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "'); DROP TABLE traffic; --\n<script>\u2028\"\\ €, \u202e =1+1 [card]"
RECORDS = [
    Record(
        question=HOSTILE,
        answer="",
        in_scope=True,
        id="a" * 32,
        model_version="v1",
        asked_at=NOON,
        latency_s=1.2345,
        prompt_tokens=40,
        completion_tokens=7,
        finished=False,
    ),
    Record(
        question="",
        answer=HOSTILE,
        in_scope=False,
        id="not hex",
        model_version="v2",
        asked_at=NOON + timedelta(seconds=1),
        latency_s=0.0,
        prompt_tokens=0,
        completion_tokens=0,
        finished=True,
        redacted={"card": 2, "email": 1},
    ),
    Record(question="q", answer="a", in_scope=None, id="3", model_version="", asked_at=NOON + timedelta(days=1)),
    Record(
        question=HOSTILE,
        answer="a",
        id="4",
        asked_at=NOON + timedelta(days=2),
        messages=(
            Message(role="system", content=HOSTILE),
            Message(role="user", content=""),
            Message(role="assistant", content="b"),
            Message(role="user", content=HOSTILE),
        ),
        parameters=Parameters(max_tokens=7, temperature=0.5, top_p=0.25, seed=2**63 - 1, stop=("\n", "€")),
        conversation="c" * 32,
    ),
    Record(question="q", answer="a", id="5", asked_at=NOON + timedelta(days=3), parameters=Parameters(max_tokens=1)),
]
FORMATS: list[Format] = ["jsonl", "parquet", "openai", "mlflow"]


@pytest.fixture
def store(store_at: Path | str) -> Iterator[TrafficStore]:
    with TrafficStore(store_at) as opened:
        yield opened


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def imported(tmp_path: Path, *rows: Any) -> list[Record]:
    with TrafficStore(tmp_path / "imported.db") as store:
        import_traffic(lines(tmp_path / "rows.jsonl", *rows), store)
        return store.records()


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_exported_is_imported_as_it_was(store: TrafficStore, tmp_path: Path, to: Format) -> None:
    store.add_many(RECORDS)
    out = tmp_path / f"it's <out>.{'parquet' if to == 'parquet' else 'jsonl'}"
    assert (export_traffic(store, out, to=to), list(tmp_path.glob(".*"))) == (5, [])
    with TrafficStore(tmp_path / "other.db") as other:
        assert import_traffic(out, other) == Imported(5, 0, 0)
        assert other.records() == RECORDS
        assert import_traffic(out, other) == Imported(0, 5, 0)
        assert other.summary().redacted == {"card": 2, "email": 1}


def test_the_name_says_the_format(store: TrafficStore, tmp_path: Path) -> None:
    store.add(RECORDS[0])
    export_traffic(store, tmp_path / "a.PARQUET")
    export_traffic(store, tmp_path / "a.txt")
    assert parquet.read_table(tmp_path / "a.PARQUET").num_rows == 1
    assert json.loads((tmp_path / "a.txt").read_text())["question"] == HOSTILE


def test_an_exported_trace_is_one_to_mlflow(store: TrafficStore, tmp_path: Path) -> None:
    store.add(RECORDS[0])
    export_traffic(store, tmp_path / "traces.jsonl", to="mlflow")
    trace = mlflow.entities.Trace.from_json((tmp_path / "traces.jsonl").read_text())
    (span,) = trace.data.spans
    assert span.inputs == {"messages": [{"role": "user", "content": HOSTILE}]}
    assert (trace.trace_id, trace.info.execution_duration) == ("tr-" + "a" * 32, 1234)
    assert trace.info.token_usage == {"input_tokens": 40, "output_tokens": 7, "total_tokens": 47}


def test_traces_of_mlflow_itself_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    # Not the default one: another test may have left one active that this database lacks.
    made = mlflow.create_experiment("traces", artifact_location=(tmp_path / "artifacts").as_uri())
    mlflow.set_experiment(experiment_id=made)
    rows = []
    message = {"role": "user", "content": "from a chat"}
    completion = {"choices": [{"message": {"role": "assistant", "content": "answer"}}]}
    pairs = [
        ({"messages": [message]}, completion),
        ("a text", "answer"),
        ({"question": "a field"}, {"answer": "answer"}),
    ]
    for inputs, outputs in pairs:
        with mlflow.start_span("root") as span:
            span.set_inputs(inputs)
            with mlflow.start_span("model", span_type="CHAT_MODEL") as model:
                model.set_inputs("the inner question")
                model.set_outputs("the inner answer")
                usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
                model.set_attribute("mlflow.chat.tokenUsage", usage)
            span.set_outputs(outputs)
        rows.append(mlflow.get_trace(span.trace_id, flush=True).to_json())
    records = imported(tmp_path, *rows)
    assert [(r.question, r.answer) for r in records] == [
        ("from a chat", "answer"),
        ("a text", "answer"),
        ("a field", "answer"),
    ]
    assert all(record.id.startswith("tr-") for record in records)
    assert (records[0].prompt_tokens, records[0].completion_tokens) == (3, 4)
    assert records[0].asked_at and abs(datetime.now(UTC) - records[0].asked_at) < timedelta(minutes=5)


def test_chats_are_imported_in_the_shapes_that_logs_have(tmp_path: Path) -> None:
    user = {"role": "user", "content": "newest"}
    before = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "old"},
        {"role": "assistant", "content": "o"},
    ]
    completion = {
        "id": "chatcmpl-1",
        "model": "gpt",
        "created": 1772366400,
        "choices": [{"message": {"role": "assistant", "content": "done"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 6},
    }
    parts = [
        {"type": "text", "text": "new"},
        {"type": "image_url"},
        {"type": "text", "text": "est"},
    ]
    records = imported(
        tmp_path,
        {"id": "1", "messages": [*before, user, {"role": "assistant", "content": "done"}]},
        {"id": "2", "messages": [*before, user], "response": "done"},
        {"messages": [user], "response": completion},
        {
            "id": 4,
            "messages": [{"role": "user", "content": parts}],
            "response": {"role": "assistant", "content": "done"},
        },
    )
    by_id = {record.id: record for record in records}
    assert sorted(by_id) == ["1", "2", "4", "chatcmpl-1"]
    assert {record.answer for record in records} == {"done"}
    assert [by_id[i].question for i in ("1", "2", "4")] == ["newest", "newest", "new\nest"]
    whole = by_id["chatcmpl-1"]
    assert (whole.model_version, whole.asked_at) == ("gpt", datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert (whole.prompt_tokens, whole.completion_tokens, whole.finished) == (5, 6, False)


def test_personal_data_is_taken_out_on_the_way_in(tmp_path: Path) -> None:
    (record,) = imported(tmp_path, {"question": "I am a@b.de", "answer": "Hello", "redacted": {"card": 1}})
    assert (record.question, record.redacted) == ("I am [email]", {"card": 1, "email": 1})


def test_rows_without_an_id_are_the_same_when_they_say_the_same(store: TrafficStore, tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", *({"question": f"q{i % 3}", "answer": "a"} for i in range(5)))
    assert import_traffic(path, store) == Imported(3, 2, 0)
    assert import_traffic(path, store) == Imported(0, 5, 0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answer": "a"}, "field 'question': field required"),
        ({"question": "q"}, "field 'answer': field required"),
        ({"question": 3, "answer": "a"}, "field 'question'"),
        ({"question": "q", "answer": "a", "in_scope": "perhaps"}, "field 'in_scope'"),
        ({"question": "q", "answer": "a", "id": []}, "field 'id'"),
        ({"question": "q", "answer": "a", "id": "\0"}, "field 'id'"),
        ({"question": "q", "answer": "a", "asked_at": "yesterday"}, "field 'asked_at'"),
        ({"question": "q", "answer": "a", "asked_at": "0001-01-01T00:00:00+05:00"}, "field 'asked_at'"),
        ({"question": "q", "answer": "a", "asked_at": "0001-01-01T00:00:00Z"}, "is before 1900, when nobody asked"),
        ({"question": "q", "answer": "a", "asked_at": "1899-12-30"}, "is before 1900, when nobody asked"),
        ({"question": "q", "answer": "a", "asked_at": "9999-12-31T23:59:59Z"}, "is more than a day after this import"),
        ({"question": "q", "answer": "a", "asked_at": "9999-12-31T23:59:59-05:00"}, "field 'asked_at': value error, "),
        (
            {"question": "q", "answer": "a", "asked_at": 4070908800},
            "2099-01-01 00:00:00+00:00 is more than a day after",
        ),
        ({"messages": [{"role": "user", "content": "q"}], "response": "a", "created": 4070908800}, "'asked_at'"),
        ({"question": "q", "answer": "a", "metadata": {}, "asked_at": "2099-01-01"}, "is more than a day after"),
        ({"question": "q", "answer": "a", "latency_s": -1}, "field 'latency_s'"),
        ('{"question": "q", "answer": "a", "latency_s": NaN}', "field 'latency_s'"),
        ({"question": "q", "answer": "a", "prompt_tokens": 1 << 31}, "field 'prompt_tokens'"),
        ({"question": "q", "answer": "a", "redacted": {"name": 1}}, "field 'redacted"),
        ({"question": "q", "answer": "a", "redacted": 5}, "field 'redacted'"),
        ({"question": "\ud800", "answer": "a"}, "field 'question'"),
        ({"question": "q" * ((1 << 20) + 1), "answer": "a"}, "field 'question'"),
        ({"messages": "hello"}, "messages must be a list"),
        ({"messages": []}, "messages must end with the assistant's"),
        ({"messages": [{"role": "user", "content": "q"}]}, "messages must end with the assistant's"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages must hold one of the user"),
        ({"messages": [{"role": "user"}], "response": "a"}, "field 'question': field required"),
        ({"messages": [{"role": "user", "content": "q"}], "response": {"choices": []}}, "field 'answer'"),
        ({"messages": [{"role": "user", "content": "q"}], "response": {"choices": 7}}, "field 'answer'"),
        ({"messages": [{"role": "user", "content": "q"}], "response": [1]}, "field 'answer'"),
        ({"info": {}, "data": {}}, "is not a trace"),
        ({"object": "chat.completion", "choices": []}, "a stored completion holds no request; put what its /messages"),
        ({"call_type": "acompletion", "id": "1", "startTime": 1}, "log holds no messages or no response"),
        ({"traceId": "t", "startTime": 1, "name": "n", "output": "a"}, "field 'question': field required"),
        ({"span_kind": "LLM", "context": {"span_id": "s"}, "attributes": {}}, "field 'question': field required"),
        ({"info": 3, "data": 4}, "is not a trace"),
        ({"info": {"trace_id": "t"}, "data": {"spans": [{}]}}, "is not a trace"),
        ("[1]", "not a JSON object"),
        ("{", "not valid JSON"),
        ('"' + "[" * 100_000, "not valid JSON"),
    ],
)
def test_a_malformed_row_stops_or_is_left_out(tmp_path: Path, row: Any, said: str) -> None:
    good = {"question": "q", "answer": "a"}
    path = lines(tmp_path / "rows.jsonl", good, row)
    with TrafficStore(tmp_path / "store.db") as store:
        with pytest.raises(UserError, match="--skip-bad") as raised:
            import_traffic(path, store)
        assert f"{path}:2: " in str(raised.value)
        assert said in str(raised.value)
        assert store.count() == 0
        assert import_traffic(path, store, skip_bad=True) == Imported(1, 0, 1)


def test_a_time_of_today_or_tomorrow_is_taken(tmp_path: Path) -> None:
    times = [datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 23)]
    rows = [{"question": "q", "answer": "a", "asked_at": time.isoformat()} for time in times]
    assert [record.asked_at for record in imported(tmp_path, *rows)] == times


def test_an_id_of_any_length_is_kept_apart_from_others(tmp_path: Path) -> None:
    ids = [f"trace:/main.observability.traces_of_the_assistant/{'0' * 60}{i}" for i in range(2)]
    path = lines(tmp_path / "rows.jsonl", *({"question": "q", "answer": "a", "id": i} for i in ids))
    with TrafficStore(tmp_path / "store.db") as store:
        assert import_traffic(path, store) == Imported(2, 0, 0)
        assert import_traffic(path, store) == Imported(0, 2, 0)
        assert {len(record.id) for record in store.records()} == {64}


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.ndjson"])
def test_packed_and_newline_delimited_json_are_imported(tmp_path: Path, name: str) -> None:
    content = b'{"question": "q", "answer": "a"}\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with TrafficStore(tmp_path / "store.db") as store:
        assert import_traffic(tmp_path / name, store) == Imported(1, 0, 0)


@pytest.mark.parametrize("name", ["none.jsonl", "rows.csv", "folder.jsonl", "broken.parquet", "owner/name"])
def test_what_is_not_a_file_of_traffic_is_the_users_to_mend(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\nq,a\n")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "broken.parquet").write_text("PAR1 and no more")
    with TrafficStore(tmp_path / "store.db") as store, pytest.raises(UserError, match=name):
        import_traffic(tmp_path / name, store)


def test_parquet_of_others_is_imported(tmp_path: Path) -> None:
    times = pa.array([NOON, None], pa.timestamp("ns", tz="Europe/Berlin"))
    table = pa.table({"question": ["q1", "q2"], "answer": ["a", ""], "asked_at": times, "id": [1, 2], "x": [[1], []]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with TrafficStore(tmp_path / "store.db") as store:
        import_traffic(tmp_path / "rows.parquet", store)
        first, second = store.records()
    assert (first.question, first.id, first.asked_at) == ("q1", "1", NOON)
    assert (second.question, second.answer) == ("q2", "")


def test_an_output_that_fails_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    with TrafficStore(tmp_path / "store.db") as store:
        store.add_many(RECORDS)
        export_traffic(store, out)
        before = out.read_bytes()
        resource_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        store.add(Record(question="x" * 200_000, answer="a"))
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource_limit[1]))  # as on a disk that is full
        try:
            with pytest.raises(UserError, match="cannot be written"):
                export_traffic(store, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, resource_limit)
            signal.signal(signal.SIGXFSZ, previous)
        for wrong in (tmp_path, tmp_path / "none" / "out.jsonl"):
            with pytest.raises(UserError, match="cannot be written"):
                export_traffic(store, wrong)
    assert out.read_bytes() == before
    assert not list(tmp_path.glob(".out*"))


IMPORT = """
import resource, sys
from pathlib import Path
from ontopic.traffic.store import TrafficStore
from ontopic.traffic.files import export_traffic, import_traffic
source, state, out, imports_first = sys.argv[1:]
import mlflow.entities, pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with TrafficStore(state) as store:
    print(import_traffic(Path(source), store))
    print(export_traffic(store, Path(out)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def write_rows(path: Path, n: int) -> None:
    with path.open("w") as file:
        for i in range(n):
            asked_at = (NOON + timedelta(seconds=i // 3)).isoformat()
            row = {"question": f"How do I open account {i}? " + "x" * 400, "answer": "So. " * 100, "asked_at": asked_at}
            file.write(json.dumps(row) + "\n")


def in_and_out(tmp_path: Path, n: int) -> int:
    """MiB of memory that an import and two exports of ``n`` rows add to a process."""
    source = tmp_path / "rows.jsonl"
    write_rows(source, n)
    used = 0
    for out in ("out.jsonl", "out.parquet"):
        command = [sys.executable, "-c", IMPORT, str(source), str(tmp_path / "store.db"), str(tmp_path / out), ""]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        stored = n if out == "out.jsonl" else 0
        assert done[:2] == [str(Imported(stored, n - stored, 0)), str(n)]
        used = max(used, int(done[2]))
    assert sum(1 for _ in (tmp_path / "out.jsonl").open()) == n
    assert parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_rows == n
    return used


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    assert in_and_out(tmp_path, 20_000) < 150  # the file is 20 MB, its rows as objects some 60 more


@pytest.mark.slow
def test_a_million_records_go_in_and_out(tmp_path: Path) -> None:
    start = time.monotonic()
    used = in_and_out(tmp_path, 1_000_000)
    print(f"{time.monotonic() - start:.0f} s, {used} MiB")
    assert used < 150


def test_an_import_that_is_killed_is_taken_up(store_at: Path | str, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    write_rows(source, 20_000)
    command = [sys.executable, "-c", IMPORT, str(source), str(store_at), str(tmp_path / "out.jsonl"), ""]
    with TrafficStore(store_at) as store:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while store.count() == 0 and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.wait()
        left = store.count()
        assert 0 < left < 20_000
        assert left % 2000 == 0
        assert import_traffic(source, store) == Imported(20_000 - left, left, 0)
        assert store.count() == 20_000
