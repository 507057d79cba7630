"""A state folder's tables, lines and files, brought into the database that machines share: all of them at once.

What is there already is left as it is, and must be the same: two states are not made one.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from pydantic import BaseModel

from ontopic.errors import UserError
from ontopic.state.database import database_name
from ontopic.state.lines import whole_lines
from ontopic.state.shared import FILES, LINES, put_file, put_lines
from ontopic.state.sqlite_file import sqlite_engine, sqlite_url
from ontopic.state.whole_file import whole_file
from ontopic.state.workspace import Workspace

_AT_ONCE = 1000  # rows


class Moved(BaseModel):
    """That a state folder was moved: a file in it, and one in the database.

    Attributes:
        id: of the folder.
        to: the database, as it may be shown; empty until it is there.
    """

    id: str
    to: str = ""


def own_state(workspace: Workspace) -> list[str]:
    """The names of what a folder holds itself of what machines share; judges may have been fetched from there."""
    tables = ["keys.db", "alerts.db", "windows.db", "verdicts.db"]
    if str(workspace.traffic).startswith("postgres"):
        tables.append("traffic.db")
    names = [*tables, workspace.promotion_record.name, workspace.user_key.name]
    folders = (workspace.labels, workspace.preference_edits, workspace.discordant, workspace.evidence)
    held = [name for name in names if (workspace.root / name).is_file()]
    return held + [f"{folder.name}/" for folder in folders if folder.is_dir() and any(folder.iterdir())]


def check_moved(workspace: Workspace) -> None:
    """Make sure that nothing begins anew where a folder has a state and the database was named later.

    Raises:
        UserError: the folder's state was not moved.
    """
    url = workspace.state_url
    if url is None or _moved(workspace).to == database_name(url) or not (held := own_state(workspace)):
        return
    raise UserError(
        f"{workspace.root}: holds a state of its own ({', '.join(held)}), and {database_name(url)} is to be used; "
        "`python run.py state move` brings it there"
    )


def moving_mark(workspace: Workspace) -> Moved:
    """What is known of a folder's move; it has an id from then on."""
    if not (mark := _moved(workspace)).id:
        mark = Moved(id=uuid.uuid4().hex)
        _write(workspace, mark)
    return mark


def was_moved(connection: sql.Connection, mark: Moved) -> bool:
    """Whether a folder's state is in the database, though a kill may have kept the folder from knowing."""
    return connection.scalar(sql.select(FILES.c.name).where(FILES.c.name == f"moved/{mark.id}")) is not None


def note_moved(connection: sql.Connection, mark: Moved) -> None:
    """Have the database know, in the transaction that moves it."""
    put_file(connection, f"moved/{mark.id}", content=b"")


def mark_moved(workspace: Workspace, mark: Moved) -> None:
    """Have the folder know to which database it was moved."""
    _write(workspace, mark.model_copy(update={"to": database_name(workspace.state_url or "")}))


def _moved(workspace: Workspace) -> Moved:
    try:
        return Moved.model_validate_json(workspace.moved.read_bytes())
    except (FileNotFoundError, ValueError):
        return Moved(id="")


def _write(workspace: Workspace, mark: Moved) -> None:
    with whole_file(workspace.moved) as part:
        part.write_text(mark.model_dump_json(), encoding="utf-8")


def move_tables(connection: sql.Connection, path: Path, *, names: Iterable[str]) -> dict[str, int]:
    """Copy the rows of an SQLite file's tables into those of the same names; returns how many of each are new.

    Raises:
        UserError: the database has another row in the place of one of these.
    """
    tables = _tables(connection, names)
    counted = {}
    engine = sqlite_engine(sqlite_url(path), pooled=False, pragmas=())
    with engine.connect() as source:
        held = sql.inspect(source)
        for table in tables:
            if not held.has_table(table.name):
                continue
            known = {column["name"] for column in held.get_columns(table.name)}
            columns = [column for column in table.columns if column.name in known]
            counted[table.name] = _copy(source, connection, table=table, columns=columns, where=path.name)
            _go_on_numbering(connection, table)
    return {name: n for name, n in counted.items() if n}


def _copy(
    source: sql.Connection,
    connection: sql.Connection,
    *,
    table: sql.Table,
    columns: Sequence[sql.Column[Any]],
    where: str,
) -> int:
    key, new = [column for column in columns if column.primary_key], 0
    if connection.scalar(sql.select(sql.exists().select_from(table))):
        there = {tuple(getattr(row, c.name) for c in key): row for row in connection.execute(sql.select(*columns))}
    else:
        there = {}
    rows = iter(source.execution_options(yield_per=_AT_ONCE).execute(sql.select(*columns)))
    while batch := list(islice(rows, _AT_ONCE)):
        left = []
        for row in batch:
            other = there.get(tuple(getattr(row, column.name) for column in key))
            if other is None:
                left.append(row._asdict())
            elif tuple(other) != tuple(row):
                raise _other(f"{where}: a row of {table.name}")
        if left:
            connection.execute(sql.insert(table), left)
            new += len(left)
    found = connection.scalar(sql.select(sql.func.count()).select_from(table)) or 0
    if found < new:
        raise RuntimeError(f"{table.name}: {new} rows were written, and {found} are there")
    return new


def _tables(connection: sql.Connection, names: Iterable[str]) -> list[sql.Table]:
    """The database's own tables, with types that SQLite reads too."""
    metadata = sql.MetaData()

    @sql.event.listens_for(metadata, "column_reflect")
    def _general(_: object, __: object, column: Any) -> None:
        column["type"] = column["type"].as_generic()

    return [sql.Table(name, metadata, autoload_with=connection) for name in names]


def _go_on_numbering(connection: sql.Connection, table: sql.Table) -> None:
    """Have the next row get the number behind the last that was copied."""
    for column in table.columns:  # not its key alone: traffic's number is none where an older release made the table
        owned = sql.func.pg_get_serial_sequence(f'"{table.name}"', column.name)
        if isinstance(column.type, sql.Integer) and connection.scalar(sql.select(owned)):
            last = sql.select(sql.func.max(column)).scalar_subquery()
            if connection.scalar(sql.select(last)) is not None:
                connection.execute(sql.select(sql.func.setval(owned, last)))


def move_lines(connection: sql.Connection, workspace: Workspace) -> dict[str, int]:
    """Store a folder's lines, and return how many of each are new; a last one that a crash cut off is left out.

    Raises:
        UserError: the database has others in their place.
    """
    counted = {}
    for path in _lines(workspace):
        name, content = path.relative_to(workspace.root).as_posix(), whole_lines(path.read_bytes())
        query = sql.select(LINES.c.content).where(LINES.c.name == name).order_by(LINES.c.number)
        there = b"".join(bytes(line) + b"\n" for line in connection.scalars(query))
        if there and not there.startswith(content):
            raise _other(name)
        if not there and (n := put_lines(connection, name, content=content)):
            counted[name] = n
    return counted


def _lines(workspace: Workspace) -> Iterator[Path]:
    if workspace.promotion_record.is_file():
        yield workspace.promotion_record
    for folder in (workspace.labels, workspace.preference_edits):
        yield from sorted(folder.glob("*.jsonl"))


def move_files(
    connection: sql.Connection, workspace: Workspace, *, contents: Iterable[tuple[Path, bytes]]
) -> dict[str, int]:
    """Store a folder's files; returns how many are new, by the folder that they are in.

    Raises:
        UserError: the database has another file in the place of one.
    """
    counted: dict[str, int] = {}
    for path, content in contents:
        place = path.relative_to(workspace.root)
        if put_file(connection, place.as_posix(), content=content):
            what = place.parts[0]
            counted[what] = counted.get(what, 0) + 1
        elif not _is_stored(connection, place.as_posix(), content=content):
            raise _other(place.as_posix())
    return counted


def _is_stored(connection: sql.Connection, name: str, *, content: bytes) -> bool:
    stored = connection.scalar(sql.select(FILES.c.sha256).where(FILES.c.name == name))
    return stored == hashlib.sha256(content).hexdigest()


def _other(what: str) -> UserError:
    return UserError(
        f"{what} is another one in the database, so nothing was moved; two states are not made one: move it away from "
        "the folder where it is not needed, or name an empty database"
    )


def tables_in(path: Path) -> list[str]:
    """The names of the tables of an SQLite file."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return [name for (name,) in names.fetchall()]
