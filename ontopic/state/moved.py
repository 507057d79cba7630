"""A state folder that was moved or copied: what others keep in it by its path is brought along.

MLflow and ZenML write absolute paths into their databases and files, and ours name pages by theirs. ``Workspace.place``
says which path they name; where the folder is opened by another one, they are rewritten.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import yaml
from filelock import FileLock, Timeout

from ontopic.errors import UserError
from ontopic.state.whole_file import whole_file
from ontopic.state.workspace import Workspace

_WAIT_S = 60  # as long as another command may take to bring the folder along
# Of models: their digest is known, and they name no path, though a tokenizer may have a token that reads like one.
_OF_MODELS = ("config.json", "adapter_config.json")


def settle(workspace: Workspace) -> None:
    """Bring a state folder along that is opened at another place than it was at before, and say so in a line.

    A folder that can't be written stays as it is. Nothing outside the folder is read or written, so that a copy leaves
    the original alone. What is rewritten is whole at any time, and the next call goes on where one was killed.

    Raises:
        UserError: a run uses the folder by another path.
    """
    here = workspace.root
    if _place(workspace) == here or not os.access(here, os.W_OK):
        return
    if (place_of(workspace) or here) != here:
        try:
            with FileLock(workspace.lock, timeout=_WAIT_S):
                _settle(workspace)
        except Timeout:
            raise UserError(f"a run uses {here} by another path; let it end") from None
    with suppress(OSError):  # on a full disk it can still be read, and the place is derived next time
        write_place(workspace, here)


def _settle(workspace: Workspace) -> None:
    here, before = workspace.root, place_of(workspace)
    if before is None or before == here:  # another command was first
        return
    write_place(workspace, before)  # what it is derived from is about to change
    if before.is_dir():  # a copy, and a service that runs is the original's
        for folder in (workspace.root, workspace.loop):
            Workspace(root=folder).service.unlink(missing_ok=True)
    rename_within(workspace, before, to=here)
    write_place(workspace, here)
    print(f"the state folder was at {before} before; what is in it goes by {here} now", file=sys.stderr)


def place_of(workspace: Workspace) -> Path | None:
    """The path by which the folder's contents go; ``None`` where nothing tells."""
    return _place(workspace) or _place_before(workspace)


def _place(workspace: Workspace) -> Path | None:
    """The path by which the folder's contents go, where it is written down."""
    text = workspace.place.read_text(encoding="utf-8", errors="replace") if workspace.place.is_file() else ""
    return Path(text) if Path(text).is_absolute() else None


def write_place(workspace: Workspace, place: Path) -> None:
    """Write down by which path the folder's contents go."""
    with whole_file(workspace.place) as part:
        part.write_text(str(place), encoding="utf-8")


def _place_before(workspace: Workspace) -> Path | None:
    """The same for a folder of OnTopic 0.1, which did not write it down: from where MLflow keeps its artifacts."""
    if not workspace.mlflow_file.is_file():
        return None
    query = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%/' || ?"
    try:
        with closing(sqlite3.connect(f"{workspace.mlflow_file.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(query, [workspace.artifacts.name]).fetchone()
    except sqlite3.Error:  # who needs the database will say what is wrong with it
        return None
    return Path(unquote(urlsplit(found[0]).path)).parent if found else None


def rename_within(workspace: Workspace, before: Path, *, to: Path) -> None:
    """Put one path in place of another wherever MLflow, ZenML or we have written it in a state folder."""
    new = _renaming(before, to)
    own = [workspace.root / "windows.db", workspace.root / "alerts.db"]  # what machines share stays
    databases = [workspace.mlflow_file, *own, *workspace.zenml.rglob("*.db")]
    for path in databases:
        if path.is_file():
            _rewrite_database(path, new)
    for path in (path for folder in (workspace.zenml, workspace.training) for path in folder.rglob("*.json")):
        if path.name not in _OF_MODELS:
            _rewrite_file(path, new)
    for path in workspace.artifacts.rglob("*.json"):
        if not any((path.parent / name).is_file() for name in _OF_MODELS):
            _rewrite_file(path, new)
    configuration = workspace.zenml / "config.yaml"
    if configuration.is_file():
        content = yaml.safe_load(configuration.read_text(encoding="utf-8"))
        with whole_file(configuration) as part:
            part.write_text(yaml.safe_dump(_in(content, new), allow_unicode=True), encoding="utf-8")


def _renaming(before: Path, here: Path) -> Callable[[str], str]:
    """What replaces one path in a text by another, also in URIs, and in JSON whose characters are escaped.

    Only whole names count, and what names the new path already stays, were it inside the old one.
    """
    old, new = str(before), str(here)
    inside = new.removeprefix(old) if new.startswith(f"{old}/") else ""

    def pattern(old: str, inside: str, *, after: str) -> re.Pattern[str]:
        known = rf"(?!{re.escape(inside)}(?:/|$))" if inside else ""
        return re.compile(rf"{after}{re.escape(old)}{known}(?=[/\"'\\\n,;)\]]|$)")

    uri = pattern(quote(old), quote(inside), after="(?<=file://)")
    # After sqlite:/// too, and not in the middle of another path.
    plain = pattern(old, inside, after=r"(?:(?<=:///)|(?<![\w./~%+\-]))")
    hint = max(re.findall(r"[A-Za-z0-9_./-]+", old), key=len)  # in whichever form the path is written

    def renamed(text: str) -> str:
        if hint not in text:
            return text
        if text[:1] in ("{", "[", '"'):
            try:
                return json.dumps(_in(json.loads(text), renamed), ensure_ascii=text.isascii())
            except ValueError:
                pass
        return plain.sub(lambda _: new, uri.sub(lambda _: quote(new), text))

    return renamed


def _in(value: Any, renamed: Callable[[str], str]) -> Any:
    """A value as JSON and YAML have it, with all texts in it renamed."""
    if isinstance(value, str):
        return renamed(value)
    if isinstance(value, list):
        return [_in(each, renamed) for each in value]
    if isinstance(value, dict):
        return {_in(key, renamed): _in(each, renamed) for key, each in value.items()}
    return value


def _rewrite_file(path: Path, renamed: Callable[[str], str]) -> None:
    text = path.read_text(encoding="utf-8")
    if (written := renamed(text)) != text:
        with whole_file(path) as part:
            part.write_text(written, encoding="utf-8")
            shutil.copymode(path, part)


def _rewrite_database(path: Path, renamed: Callable[[str], str]) -> None:
    """Rename in all columns of all tables of an SQLite file, in one transaction; nothing stays in its free pages."""
    try:
        with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            for table, column in _columns(database):
                query = f"SELECT rowid, {column} FROM {table} WHERE typeof({column}) IN ('text', 'blob')"  # noqa: S608
                for row, value in database.execute(query).fetchall():
                    written = _packed(value, renamed) if isinstance(value, bytes) else renamed(value)
                    if written != value:
                        database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (written, row))  # noqa: S608
            database.execute("COMMIT")
            database.execute("VACUUM")
    except sqlite3.Error as error:
        error.add_note(f"in {path}")
        raise


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Each table with each of its columns, quoted."""
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            yield f'"{table}"', f'"{column}"'


def _packed(value: bytes, renamed: Callable[[str], str]) -> bytes:
    """The same for what ZenML keeps of a stack's parts, JSON in base64; other bytes stay."""
    try:
        text = base64.b64decode(value, validate=True).decode()
    except ValueError:
        return value
    written = renamed(text)
    return value if written == text else base64.b64encode(written.encode())
