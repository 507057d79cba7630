"""Judging records partition by partition: of each a whole Parquet file of verdicts, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.data.partitions import Partition, Row, Source
from ontopic.judges.judge import Judge, judge_stream
from ontopic.records import Outcome, Verdict
from ontopic.state.whole_file import whole_file, writing

if TYPE_CHECKING:
    import pyarrow as pa

_ABOUT = b"ontopic"  # what a file says of itself stands under this key
_ROW_GROUP = 10_000
_VERDICT = ("verdict", "score", "explanation", "judge_id", "in_scope", "declined", "scope_score", "cause")


class JudgedPartition(BaseModel):
    """A partition whose verdicts are in a file.

    Attributes:
        digest: of its records.
        outcomes: how many records have which verdict.
        causes: how many are unjudged for which cause.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    digest: str
    judge_id: str
    n: int
    outcomes: dict[Outcome, int]
    causes: dict[str, int]


def verdicts_file(out: Path, partition: Partition) -> Path:
    """Where the verdicts on a partition are, once it is judged."""
    return out / f"{partition.name}.parquet"


def judged_before(out: Path, partition: Partition, *, judge_id: str) -> JudgedPartition | None:
    """A partition that this judge has judged as it is now; ``None`` where it has not."""
    import pyarrow as pa
    from pyarrow import parquet

    path = verdicts_file(out, partition)
    if not path.is_file():
        return None
    try:
        about = (parquet.read_metadata(path).metadata or {}).get(_ABOUT, b"")
        found = JudgedPartition.model_validate_json(about)
    except (pa.ArrowException, ValidationError):  # a file that is not ours
        return None
    return found if (found.judge_id, found.digest) == (judge_id, partition.digest) else None


def judge_partition(source: Source, partition: Partition, *, judge: Judge, out: Path) -> JudgedPartition:
    """Judge the records of one partition in their order, as they would be judged from a file.

    The file of verdicts appears when it is whole. In memory is a row group of some 10,000 rows.

    Raises:
        UserError: records can't be read, the file can't be written, or a server refuses for a reason that no
            repetition mends.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path, schema = verdicts_file(out, partition), _schema(source.columns)
    outcomes, causes = Counter[Outcome](), Counter[str]()
    lines = _lines(source.rows(partition), judge)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        while group := list(islice(lines, _ROW_GROUP)):
            outcomes.update(line["verdict"] for line in group)
            causes.update(line["cause"] or "no cause given" for line in group if line["verdict"] == "unjudged")
            with writing(path):
                writer.write_table(pa.Table.from_pylist(group, schema))
        about = {"name": partition.name, "digest": partition.digest, "judge_id": judge.id, "n": outcomes.total()}
        done = JudgedPartition.model_validate(about | {"outcomes": dict(outcomes), "causes": dict(causes)})
        writer.add_key_value_metadata({_ABOUT: done.model_dump_json().encode()})
    return done


def _lines(rows: Iterator[Row], judge: Judge) -> Iterator[dict[str, Any]]:
    ours, judged = tee(rows)
    for row, verdict in zip(ours, judge_stream(judge, (each.record for each in judged)), strict=True):
        yield row.beside | _verdict(verdict)


def _verdict(said: Verdict) -> dict[str, Any]:
    return {"verdict": said.outcome} | said.model_dump(exclude={"outcome"})


def _schema(columns: tuple[str, ...]) -> pa.Schema:
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    others = {"messages": messages, "asked_at": pa.timestamp("us", tz="UTC")}
    others |= dict.fromkeys(("score", "scope_score"), pa.float64()) | dict.fromkeys(
        ("in_scope", "declined"), pa.bool_()
    )
    return pa.schema([(name, others.get(name, pa.string())) for name in (*columns, *_VERDICT)])
