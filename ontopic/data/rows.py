"""Rows of a data file: one loader for every usual format, which names a malformed row by file, line and field."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from ontopic.data.cells import as_fields, problem_in_words, table_cells
from ontopic.data.csv_file import csv_rows
from ontopic.data.json_file import json_rows
from ontopic.errors import UserError
from ontopic.state.carried_files import here

_PACKAGE = "ontopic:"
_JSON, _TABLES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv", ".tab", ".txt")
_WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".numbers")
_ROWS_A_BATCH = 1000
_NAMED = 3  # malformed rows

Row = TypeVar("Row", bound=BaseModel)


@dataclass(frozen=True)
class Loaded(Generic[Row]):
    """Rows that were read.

    Attributes:
        skipped: how many more are malformed.
    """

    rows: list[Row]
    skipped: int


def load_rows(
    source: str | Path, schema: type[Row], *, skip_bad: bool | None = None, base: Path | None = None
) -> Loaded[Row]:
    """Read questions or records.

    Args:
        source: a JSONL, JSON, CSV or Parquet file, text packed with gzip or not; ``ontopic:NAME`` for data that comes
            with the package; or a Hugging Face data set id, optionally with ``#split`` ("train" where none is named).
        schema: such as ``Question`` or ``LabelledRecord``.
        skip_bad: leave out malformed rows instead of stopping; ``None`` where nobody can ask for that.
        base: the folder that a relative file name is taken from; the working folder where none is given.

    Raises:
        UserError: the source can't be read, or (without ``skip_bad``) a row is malformed: file, line and field of
            the first ones are named.
    """
    name, problems = str(source), Problems()
    rows = [row for _, row in placed_rows(name, schema, base=base, problems=problems)]
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
        return (row for _, row in placed_rows(self.source, self.schema, problems=Problems()))


def stream_rows(source: str | Path, schema: type[Row], *, skip_bad: bool | None = None) -> RowStream[Row]:
    """As ``load_rows``, for more rows than fit into memory; all are checked once before the first is given."""
    name, problems = str(source), Problems()
    n = sum(1 for _ in placed_rows(name, schema, problems=problems))
    problems.check(name, schema, rows=n, skip_bad=skip_bad)
    return RowStream(name, schema, n, problems.count)


def source_sha256(source: str) -> str:
    """sha256 (hex) of a data file, of the package or not; of the name alone for a Hugging Face data set."""
    path = _path(source, None)
    return hashlib.sha256(path.read_bytes() if path.is_file() else source.encode()).hexdigest()


@dataclass
class Problems:
    """The first malformed rows in words, and how many there are.

    Args:
        leave_out: how a user asks for the well-formed rows alone.
    """

    leave_out: str = "--skip-bad"
    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, problem: str) -> None:
        """Note one."""
        self.count += 1
        if self.count <= _NAMED:
            self.first.append(f"{place}: {problem}")

    def check(self, name: str, schema: type[BaseModel], *, rows: int, skip_bad: bool | None) -> None:
        """Stop where there are some, without ``skip_bad``, or where no row is left.

        Raises:
            UserError: so it is.
        """
        if self.count and not skip_bad:
            left = f", or leave them out with {self.leave_out}" if skip_bad is False else ""
            more = f"and {self.count - _NAMED:,} more; " if self.count > _NAMED else ""
            raise UserError("\n".join([*self.first, f"{more}mend these rows{left}"]))
        if not rows:
            raise UserError(
                f"{name}: holds no usable row; give at least one with the fields {', '.join(_required(schema))}"
            )


def placed_rows(
    name: str, schema: type[Row], *, base: Path | None = None, problems: Problems
) -> Iterator[tuple[str, Row]]:
    """Each well-formed row, with where it stands, such as ``FILE:LINE``.

    Args:
        name: as ``load_rows`` takes a source.
        problems: is told of the others.

    Raises:
        UserError: the source can't be read.
    """
    for place, raw in _raw_rows(name, schema, base=base):
        if isinstance(raw, UserError):
            problems.add(place, str(raw))
            continue
        try:
            row = as_fields(raw, schema)
            yield place, schema.model_validate(row)
        except ValidationError as error:
            problems.add(place, problem_in_words(error.errors()[0], row, schema=schema))
        except UserError as error:
            problems.add(place, str(error))


def _required(schema: type[BaseModel]) -> list[str]:
    return [name for name, field in schema.model_fields.items() if field.is_required()]


def _path(name: str, base: Path | None) -> Path:
    if name.startswith(_PACKAGE):
        return Path(str(files("ontopic") / "data" / name.removeprefix(_PACKAGE)))
    return here((base or Path()) / os.path.expanduser(name))  # noqa: PTH111 (Path's fails on an unknown user)


def _raw_rows(
    name: str, schema: type[BaseModel], *, base: Path | None
) -> Iterator[tuple[str, dict[str, Any] | UserError]]:
    """Each row as a mapping, with where it stands; one that is none comes as the error it is."""
    path = _path(name, base)
    suffix = _suffix(path)
    if not os.path.lexists(path):
        if suffix or name.startswith((_PACKAGE, ".", "/")) or "/" not in name:
            raise UserError(f"{name}: no such file; give a JSONL, CSV or Parquet file, or a Hugging Face data set id")
        yield from _hub_rows(name)
        return
    try:
        yield from ((f"{path}:{number}", row) for number, row in _file_rows(path, suffix, schema=schema))
    except (OSError, EOFError, zlib.error) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or "it is packed with gzip, and damaged"
        raise UserError(f"{path}: cannot be read ({why}); check the file and its rights") from error


def _file_rows(path: Path, suffix: str, *, schema: type[BaseModel]) -> Iterator[tuple[int, dict[str, Any] | UserError]]:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file in it")
    fields = frozenset(schema.model_fields)
    if suffix in _JSON:
        return json_rows(path, fields)
    if suffix in _TABLES:
        return csv_rows(path, fields=fields, required=frozenset(_required(schema)))
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix in _WORKBOOKS:
        raise UserError(f"{path}: is a spreadsheet; save it as CSV (in Excel: CSV UTF-8) and give that file")
    raise UserError(f"{path}: unknown kind of file {path.suffix!r}; give .jsonl, .csv or .parquet")


def _suffix(path: Path) -> str:
    """How the name ends, as far as that is known, without what says that it is packed."""
    name = path.name.lower().removesuffix(".gz")
    return next((each for each in (*_JSON, *_TABLES, ".parquet", *_WORKBOOKS) if name.endswith(each)), "")


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow import parquet  # commands that read no such file need not wait for it

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise UserError(f"{path}: has the column {twice[0]!r} twice; keep one of them")
            rows = (row for batch in file.iter_batches(_ROWS_A_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield number, table_cells(row)
    except UserError:
        raise
    except Exception as error:  # pyarrow raises many unrelated types
        raise UserError(f"{path}: cannot be read as parquet ({type(error).__name__}); mend the file") from error


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
        yield f"{name}:{number}", with_class_names(row, rows.features)


def with_class_names(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a Hugging Face data set with the names of its classes in place of their numbers."""
    classes = {name: feature for name, feature in features.items() if hasattr(feature, "int2str")}
    numbers = {name: row[name] for name in classes if isinstance(row[name], int) and row[name] >= 0}
    return dict(row) | {name: classes[name].int2str(number) for name, number in numbers.items()}
