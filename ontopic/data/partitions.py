"""Records by partition, a stretch that is judged as a whole: what several workers share out among them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from ontopic.data.labelled import LabelledRecord
from ontopic.data.rows import Problems, placed_rows
from ontopic.errors import UserError
from ontopic.records import Record

_LINES, _CHUNK = (".jsonl", ".ndjson"), 1 << 20


class Partition(BaseModel):
    """A stretch of records.

    Attributes:
        name: its place among the others, a relative path without a suffix.
        source: what it is read from, such as a file's relative path.
        n: how many records are in it, as far as can be told before they are read.
        digest: changes where other records would be judged.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    source: str
    n: int
    digest: str


class Row(NamedTuple):
    """A record to be judged, and what stands beside its verdict."""

    beside: dict[str, Any]
    record: Record


class Source(Protocol):
    """Where records are read from; can be pickled, and holds nothing secret and no record."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands beside a verdict."""

    def partitions(self) -> list[Partition]:
        """All of them, in their order."""

    def rows(self, partition: Partition) -> Iterator[Row]:
        """The records of one, in their order and in bounded memory."""


@dataclass(frozen=True)
class PartitionedFiles:
    """A JSONL or Parquet file of records, or a folder of them, in which each file is a partition.

    Args:
        root: absolute, as other machines name it too.
        skip_bad: whether malformed rows are left out.
    """

    root: Path
    skip_bad: bool = False
    columns: tuple[str, ...] = ("question", "answer", "messages", "label")

    def partitions(self) -> list[Partition]:
        """A file each, in the order of their paths.

        Raises:
            UserError: there is none, one cannot be read, or two would have their verdicts in one file.
        """
        found: dict[str, Partition] = {}
        for path in self._paths():
            relative = path.relative_to(self._folder)
            name = relative.with_name(relative.name.removesuffix(path.suffix)).as_posix()
            if name in found:
                raise UserError(
                    f"{self.root}: {found[name].source} and {relative} would have one file of verdicts; rename one"
                )
            try:
                about, n = path.stat(), _rows_in(path)
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}); check its rights") from error
            said = f"{relative} {about.st_size} {about.st_mtime_ns} {self.skip_bad}"
            digest = hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()
            found[name] = Partition(name=name, source=str(relative), n=n, digest=digest)
        if not found:
            raise UserError(f"{self.root}: holds no .jsonl and no .parquet file; give a file or a folder with some")
        return list(found.values())

    def rows(self, partition: Partition) -> Iterator[Row]:
        """The rows of a file.

        Raises:
            UserError: it can't be read, or has malformed rows that are not to be skipped; maybe at its end only.
        """
        source, problems = str(self._folder / partition.source), Problems()
        n = 0
        for _, row in placed_rows(source, LabelledRecord, problems=problems):
            n += 1
            about = {"question": row.question, "answer": row.answer, "label": row.label}
            yield Row(about | {"messages": row.request if row.messages else None}, row.record())
        problems.check(source, LabelledRecord, rows=n, skip_bad=self.skip_bad)

    @property
    def _folder(self) -> Path:
        return self.root if self.root.is_dir() else self.root.parent

    def _paths(self) -> list[Path]:
        if not self.root.exists():
            raise UserError(f"{self.root}: no such file or folder; give a .jsonl or .parquet file, or a folder of them")
        paths = [self.root] if self.root.is_file() else sorted(self.root.rglob("*"))
        return [
            path
            for path in paths
            if path.suffix in (*_LINES, ".parquet") and path.is_file() and not path.name.startswith((".", "_"))
        ]


def _rows_in(path: Path) -> int:
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return int(parquet.read_metadata(path).num_rows)
        except pa.ArrowException as error:
            raise UserError(f"{path}: cannot be read as parquet ({type(error).__name__}); mend the file") from error
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            lines, last = lines + chunk.count(b"\n"), chunk[-1:]
    return lines + (last != b"\n")
