"""``state``: where the state is kept, and ``state move``: a folder's, into the database that machines share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ontopic.commands.listing import Commands
from ontopic.commands.options import Project, console, say, unmoved
from ontopic.errors import UserError
from ontopic.progress import working

if TYPE_CHECKING:
    import sqlalchemy as sql

    from ontopic.state.workspace import Workspace

app = typer.Typer(
    cls=Commands, rich_markup_mode=None, help="Say where the state is kept, or move a folder's into PostgreSQL."
)
_TABLES = ("keys.db", "alerts.db", "windows.db", "verdicts.db")


@app.callback(invoke_without_command=True)
@unmoved
def state(context: typer.Context, project: Project) -> None:
    """Say where the state is kept."""
    from ontopic.state.database import database_name

    workspace = project.workspace
    url = workspace.state_url
    shared = f"{database_name(url)}, which machines share" if url else "none: all is in the folder"
    console.print(f"folder: {workspace.root}\ndatabase: {shared}\ntraffic: {database_name(workspace.traffic)}")


@app.command()
@unmoved
def move(project: Project) -> None:
    """Bring a folder's state into the database that ONTOPIC_STATE_URL names, once and all of it; the folder stays.

    That is keys, alerts, windows, actions, verdicts, labels, edits of pairs, the promotion record with its evidence,
    pairs to label, judges with their cards, the key that users' names are hashed with, and the traffic.
    """
    from ontopic.commands.locking import locked
    from ontopic.state.database import database_name, open_state
    from ontopic.state.moving import mark_moved, moving_mark, note_moved, was_moved
    from ontopic.state.service_file import read_service

    workspace = project.workspace
    if (url := workspace.state_url) is None:
        raise UserError("no database is named; set ONTOPIC_STATE_URL=postgresql://user:password@host/database in .env")
    if not workspace.root.is_dir():
        raise UserError(f"{workspace.root}: there is no such state folder; check --state")
    service = read_service(workspace.service)
    if service is not None and service.process() is not None:
        raise UserError(f"process {service.pid} serves from {workspace.root}, and stores there; end it first")
    engine = open_state(url)
    with locked(workspace, project.policy.registered_model), working():
        _upgrade(workspace)
        mark = moving_mark(workspace)
        with engine.begin() as connection:
            counts = None if was_moved(connection, mark) else dict(_moved(connection, workspace))
            if counts is not None:
                note_moved(connection, mark)
        mark_moved(workspace, mark)
    if counts is None:
        console.print(f"nothing is left to move: {workspace.root} was moved to {database_name(url)} before")
        return
    said = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing, for it holds nothing"
    console.print(f"moved to {database_name(url)}: {said}")
    say(f"{workspace.root} keeps pages, models and a copy of what was moved, which is not read any more")


def _upgrade(workspace: Workspace) -> None:
    """Give the folder's files, which an earlier release may have written, the tables of this release."""
    from ontopic.monitoring.alerts import Alerts
    from ontopic.monitoring.windows import WindowStore
    from ontopic.traffic.store import TrafficStore
    from ontopic.watch.actions import ActionStore

    root = workspace.root
    if (root / "alerts.db").is_file():
        Alerts(root / "alerts.db", (), policy="").close()
    if (root / "windows.db").is_file():
        WindowStore(root / "windows.db", "").close()
        ActionStore(root / "windows.db", "").close()
    TrafficStore(workspace.traffic).close()
    if (root / "traffic.db").is_file():
        TrafficStore(root / "traffic.db").close()


def _moved(connection: sql.Connection, workspace: Workspace) -> Iterator[tuple[str, int]]:
    """What is new in the database, in words, and how much."""
    import sqlalchemy as sql

    from ontopic.state.moving import move_files, move_lines, move_tables, tables_in

    there = set(sql.inspect(connection).get_table_names())
    for name in _TABLES:
        if (path := workspace.root / name).is_file():
            for table, n in move_tables(connection, path, names=there & set(tables_in(path))).items():
                yield f"rows of {table}", n
    for table, n in _moved_traffic(connection, workspace).items():
        yield f"rows of {table}", n
    for name, n in move_lines(connection, workspace).items():
        yield f"lines of {name}", n
    for name, n in move_files(connection, workspace, contents=_files(workspace)).items():
        yield f"files of {name}", n


def _moved_traffic(connection: sql.Connection, workspace: Workspace) -> dict[str, int]:
    """The traffic's rows, which may have a database of their own: a transaction there, which ends first."""
    from ontopic.state.moving import move_tables
    from ontopic.traffic.schema import TRAFFIC, open_database

    path, where = workspace.root / "traffic.db", workspace.traffic
    if not (path.is_file() and str(where).startswith("postgres")):
        return {}
    names = [table.name for table in TRAFFIC.metadata.sorted_tables]
    if where == workspace.state_url:
        return move_tables(connection, path, names=names)
    with open_database(where)[1].begin() as own:
        return move_tables(own, path, names=names)


def _files(workspace: Workspace) -> Iterator[tuple[Path, bytes]]:
    from ontopic.judges.local.at_hand import judge_files
    from ontopic.state.files import DiskFiles

    if workspace.user_key.is_file():
        yield workspace.user_key, workspace.user_key.read_bytes()
    for folder in (workspace.evidence, workspace.discordant, workspace.erasures):
        for path in DiskFiles().within(folder):
            yield path, path.read_bytes()
    for path in sorted(workspace.judges.glob("*")):
        if path.is_file():
            yield path, path.read_bytes()
        elif (path / "judge.joblib").is_file():
            for name, content in judge_files(path):
                yield path / name, content
