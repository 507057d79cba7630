"""Rows of a data file: one loader for every usual format, which names a malformed row by file, line and field."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ontopic.errors import UserError

_PACKAGE = "ontopic:"
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_ROWS_A_BATCH = 1000

Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class Loaded(Generic[Row]):
    """Rows that were read, and how many were skipped as malformed."""

    rows: list[Row]
    skipped: int


def load_rows(
    source: str | Path, schema: type[Row], *, skip_bad: bool = False, base: Path | None = None
) -> Loaded[Row]:
    """Read questions or records.

    Args:
        source: a JSONL, CSV or Parquet file; ``ontopic:NAME`` for data that comes with the package; or a Hugging
            Face data set id, optionally with ``#split`` ("train" where none is named).
        schema: such as ``Question`` or ``LabelledRecord``.
        skip_bad: leave out malformed rows instead of stopping.
        base: the folder that a relative file name is taken from; the working folder where none is given.

    Raises:
        UserError: the source can't be read, or (without ``skip_bad``) a row is malformed: file, line and field of
            the first ones are named.
    """
    rows: list[Row] = []
    name, problems = str(source), _Problems()
    for row in _rows(name, schema, base=base, problems=problems):
        rows.append(row)
    problems.check(name, schema, rows=len(rows), skip_bad=skip_bad)
    return Loaded(rows, problems.count)


@dataclass(frozen=True)
class RowStream(Generic[Row]):
    """The well-formed rows of a source, read anew each time it is iterated over.

    Attributes:
        n: how many there are.
        skipped: how many more are malformed.
    """

    source: str
    schema: type[Row]
    n: int
    skipped: int

    def __iter__(self) -> Iterator[Row]:
        return _rows(self.source, self.schema, base=None, problems=_Problems())


def stream_rows(source: str | Path, schema: type[Row], *, skip_bad: bool = False) -> RowStream[Row]:
    """As ``load_rows``, for more rows than fit into memory; all are checked once before the first is given."""
    name, problems = str(source), _Problems()
    n = sum(1 for _ in _rows(name, schema, base=None, problems=problems))
    problems.check(name, schema, rows=n, skip_bad=skip_bad)
    return RowStream(name, schema, n, problems.count)


def source_sha256(source: str) -> str:
    """sha256 (hex) of a data file, of the package or not; of the name alone for a Hugging Face data set."""
    path = _path(source, None)
    return hashlib.sha256(path.read_bytes() if path.is_file() else source.encode()).hexdigest()


@dataclass
class _Problems:
    """The first malformed rows in words, and how many there are."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, problem: str) -> None:
        self.count += 1
        if self.count <= 3:
            self.first.append(f"{place}: {problem}")

    def check(self, name: str, schema: type[BaseModel], *, rows: int, skip_bad: bool) -> None:
        if self.count and not skip_bad:
            more = f" (and {self.count - 3} more)" if self.count > 3 else ""
            raise UserError("; ".join(self.first) + more + "; mend these rows, or leave them out with --skip-bad")
        if not rows:
            raise UserError(f"{name}: holds no usable row; give at least one with the fields {_required(schema)}")


def _rows(name: str, schema: type[Row], *, base: Path | None, problems: _Problems) -> Iterator[Row]:
    for place, raw in _raw_rows(name, base):
        if isinstance(raw, UserError):
            problems.add(place, str(raw))
            continue
        try:
            yield schema.model_validate(raw)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "row"
            problems.add(place, f"field {where!r}: {problem['msg'].lower()}")


def _required(schema: type[BaseModel]) -> str:
    return ", ".join(name for name, field in schema.model_fields.items() if field.is_required())


def _path(name: str, base: Path | None) -> Path:
    if name.startswith(_PACKAGE):
        return Path(str(files("ontopic") / "data" / name.removeprefix(_PACKAGE)))
    return (base or Path()) / Path(name).expanduser()


def _raw_rows(name: str, base: Path | None) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    """Each row as a mapping, with where it stands; a line that is no JSON object comes as the error it is."""
    path = _path(name, base)
    if not path.exists():
        if path.suffix.lower() in _SUFFIXES or name.startswith((_PACKAGE, ".", "/")) or "/" not in name:
            raise UserError(f"{name}: no such file; give a JSONL, CSV or Parquet file, or a Hugging Face data set id")
        yield from _hub_rows(name)
        return
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        yield from _json_lines(path)
    elif suffix == ".csv":
        yield from _csv_rows(path)
    elif suffix == ".parquet":
        yield from _parquet_rows(path)
    else:
        raise UserError(f"{path}: unknown kind of file {suffix!r}; give .jsonl, .csv or .parquet")


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError:
                yield place, UserError("the line is not UTF-8")
                continue
            except (ValueError, RecursionError):  # a number of 5,000 digits is a plain ValueError
                yield place, UserError("the line is not valid JSON")
                continue
            yield place, row if isinstance(row, dict) else UserError("the line is not a JSON object")


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                yield f"{path}:{reader.line_num}", _cells(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as csv ({type(error).__name__}); mend the file") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    from pyarrow import parquet  # commands that read no such file need not wait for it

    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(_ROWS_A_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield f"{path}:{number}", _cells(row)
    except Exception as error:  # pyarrow raises many unrelated types
        raise UserError(f"{path}: cannot be read as parquet ({type(error).__name__}); mend the file") from error


def _cells(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A table's row without its empty cells, though a question or an answer may be empty.

    A scope in words becomes a boolean.
    """
    cells = {}
    for name, value in row.items():
        empty = value is None or (isinstance(value, float) and math.isnan(value))
        if empty or (value == "" and name not in ("question", "answer")):
            continue
        if name == "in_scope" and isinstance(value, str) and value.strip().lower() in ("true", "false"):
            value = value.strip().lower() == "true"
        cells[str(name)] = value.item() if hasattr(value, "item") else value
    return cells


def _hub_rows(name: str) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    import datasets

    identifier, _, split = name.partition("#")
    try:
        rows = datasets.load_dataset(identifier, split=split or "train")
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise UserError(
            f"{name}: is not a file, and no data set of that id could be had from the Hugging Face hub "
            f"({type(error).__name__}); give a local file, or check the id, the network and HF_TOKEN"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{name}:{number}", dict(row)
