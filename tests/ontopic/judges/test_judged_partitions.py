"""Partitions of records: of each a whole file of verdicts, the same as from a file; read from files and the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import run
from ontopic.data.labelled import LabelledRecord
from ontopic.data.partitions import Partition, PartitionedFiles, Row
from ontopic.data.rows import stream_rows
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.judged_file import by_judge, write_judged
from ontopic.judges.judged_partitions import judge_partition, judged_before, verdicts_file
from ontopic.progress import Advance
from ontopic.records import Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.traffic.partitions import StoredHours
from ontopic.traffic.store import TrafficStore

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m",
    "a\u202egnp.exe",
    "nul \0 here",
    "</script>",
    "'; --",
]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Lengths:
    """Scores an answer by its length; quotes it."""

    id = "lengths"

    def __init__(self) -> None:
        self.account = Account()

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        return [
            Verdict(
                outcome="pass" if len(each.answer) % 2 else "fail",
                score=1 / (1 + len(each.answer)),
                explanation=f"It says {each.answer}.",
                judge_id=self.id,
            )
            for each in records
        ]


def write_rows(path: Path, texts: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"Of {text}?", "answer": text, "label": "pass"} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_verdicts_are_those_of_the_file_to_the_letter(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "records/day=2026-01-01/13.jsonl", [*HOSTILE, *(f"text {i}" for i in range(2500))])
    source, out = PartitionedFiles(tmp_path / "records"), tmp_path / "out"
    (partition,) = source.partitions()
    assert (partition.name, partition.n) == ("day=2026-01-01/13", 2506)
    done = judge_partition(source, partition, judge=Lengths(), out=out)
    write_judged(stream_rows(path, LabelledRecord), by_judge(Lengths()), out=tmp_path / "o.jsonl", advance=len_of)
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    rows = parquet.read_table(verdicts_file(out, partition), partitioning=None).to_pylist()
    assert [{k: v for k, v in row.items() if k != "messages"} for row in rows] == lines
    assert all(row["messages"] is None for row in rows)
    assert done.n == 2506 == sum(done.outcomes.values())


def len_of(n: int) -> None:
    pass


def test_what_is_whole_is_known_by_its_judge_and_its_records(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "records/a.jsonl", ["one", "two"])
    source, out = PartitionedFiles(path), tmp_path / "out"
    (partition,) = source.partitions()
    assert judged_before(out, partition, judge_id="lengths") is None
    done = judge_partition(source, partition, judge=Lengths(), out=out)
    assert judged_before(out, partition, judge_id="lengths") == done
    assert judged_before(out, partition, judge_id="another") is None
    write_rows(path, ["one", "two", "three"])
    assert judged_before(out, source.partitions()[0], judge_id="lengths") is None
    verdicts_file(out, partition).write_bytes(b"cut off")
    assert judged_before(out, partition, judge_id="lengths") is None


class Stops(PartitionedFiles):
    """Breaks off in the middle, as a killed worker does."""

    def rows(self, partition: Partition) -> Iterator[Row]:
        for number, row in enumerate(super().rows(partition)):
            if number == 1500:
                raise KeyboardInterrupt
            yield row


def test_of_what_broke_off_there_is_no_file(tmp_path: Path) -> None:
    source = Stops(write_rows(tmp_path / "a.jsonl", [f"text {i}" for i in range(2000)]))
    with pytest.raises(KeyboardInterrupt):
        judge_partition(source, source.partitions()[0], judge=Lengths(), out=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_files_that_cannot_be_partitions_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        PartitionedFiles(tmp_path / "none").partitions()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no"):
        PartitionedFiles(tmp_path / "empty").partitions()
    write_rows(tmp_path / "two/a.jsonl", ["x"])
    write_rows(tmp_path / "two/a.ndjson", ["x"])
    with pytest.raises(UserError, match="would have one file of verdicts"):
        PartitionedFiles(tmp_path / "two").partitions()
    (tmp_path / "odd.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        PartitionedFiles(tmp_path / "odd.parquet").partitions()
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a?", "answer": "b"}\n{"question": 3}\n')
    for skip in (False, True):
        source = PartitionedFiles(bad, skip_bad=skip)
        (partition,) = source.partitions()
        if skip:
            assert judge_partition(source, partition, judge=Lengths(), out=tmp_path / "out").n == 1
        else:
            with pytest.raises(UserError, match="jsonl:2"):
                judge_partition(source, partition, judge=Lengths(), out=tmp_path / "out")


def test_stored_traffic_is_partitioned_by_the_hour(
    store_at: Path | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", str(store_at))
    with TrafficStore(store_at, "m") as store:
        store.add_many(
            Record(question=f"q {i}?", answer=HOSTILE[i % 4], id=f"r{i:02}", asked_at=NOON + i * timedelta(minutes=10))
            for i in range(30)
        )
        store.add(Record(question="of another?", answer="x", registered_model="other", asked_at=NOON))
    source = StoredHours.of(Workspace(root=tmp_path), "m")
    partitions = source.partitions()
    assert [(each.name, each.n) for each in partitions[:2]] == [("day=2026-01-01/12", 6), ("day=2026-01-01/13", 6)]
    assert [row.record.id for each in partitions for row in source.rows(each)] == [f"r{i:02}" for i in range(30)]
    judge_partition(source, partitions[1], judge=Lengths(), out=tmp_path / "out")
    rows = parquet.read_table(tmp_path / "out/day=2026-01-01/13.parquet", partitioning=None).to_pylist()
    assert rows[0].keys() == {"id", "model_version", "asked_at", *list(rows[0])[3:]}
    assert (rows[0]["id"], rows[0]["asked_at"]) == ("r06", NOON + timedelta(hours=1))
    with TrafficStore(store_at, "m") as store:
        store.add(Record(question="late?", answer="x", asked_at=NOON + timedelta(hours=1)))
    after = source.partitions()
    assert judged_before(tmp_path / "out", after[1], judge_id="lengths") is None
    assert [a.digest == b.digest for a, b in zip(partitions, after, strict=True)] == [True, False, True, True, True]


def test_another_store_on_a_worker_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", "postgresql://me:secret@one/traffic")
    source = StoredHours.of(Workspace(root=tmp_path), "m")
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", "postgresql://me:secret@two/traffic")
    with pytest.raises(UserError, match="set ONTOPIC_TRAFFIC_URL there") as error:
        source.partitions()
    assert "secret" not in f"{error.value} {source!r}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "the engine ray is not installed; run pip install -c constraints.txt -e '.[ray]'"),
        ("--grading reference", "--engine ray judges by the rubric alone"),
    ],
)
def test_without_ray_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["judge", "--engine", "ray", "--state", str(tmp_path / "s"), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(run.app, [*arguments, *options.split()])
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)


@pytest.mark.parametrize(("records", "out"), [("records", "records"), ("records", "records/in"), ("records", "file")])
def test_the_folder_of_verdicts_is_another_one(tmp_path: Path, records: str, out: str) -> None:
    write_rows(tmp_path / "records/a.jsonl", ["one"])
    (tmp_path / "file").touch()
    arguments = ["--records", str(tmp_path / records), "--out", str(tmp_path / out), "--state", str(tmp_path / "s")]
    done = CliRunner().invoke(run.app, ["judge", "--engine", "ray", *arguments])
    assert isinstance(done.exception, UserError)
    assert "another folder" in str(done.exception) or "is a file" in str(done.exception)


def test_a_partition_that_kills_its_workers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ontopic.judges import ray_engine

    source, out = PartitionedFiles(write_rows(tmp_path / "a.jsonl", ["one"])), tmp_path / "out"
    row = {"partition": source.partitions()[0].model_dump_json()}

    class Dies:
        def open(self) -> None:
            raise KeyboardInterrupt  # as far as a test can be killed

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            ray_engine._Worker(source, Dies(), out=out)(row)  # type: ignore[arg-type]
    given_up = ray_engine._Worker(source, Dies(), out=out)(row)  # type: ignore[arg-type]
    assert "a worker died 4 times over a, maybe for want of memory" in given_up["mistake"]
    assert list(out.iterdir()) == []
