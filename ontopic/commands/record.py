"""``record`` and ``record verify``: what the promotion record holds, and whether it is as it was written."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ontopic.commands.listing import Commands
from ontopic.commands.options import Project, console, on_project
from ontopic.commands.record_page import entry_in_words, page_of
from ontopic.commands.reporting import AsJson, reporting
from ontopic.errors import UserError
from ontopic.registry.promotion_record import Entry, PromotionRecord
from ontopic.registry.promotions import GATE, ModelRegistry, Promotion, open_registry, registered_models
from ontopic.state.whole_file import writing
from ontopic.state.workspace import Workspace
from ontopic.visible import visible

_SHOW = "show"


class _Record(Commands):
    """A group whose first argument is a command or what ``show`` takes."""

    # Any: typer brings a click of its own under a private name.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``show`` before what is no command."""
        if not args or args[0] not in (*self.commands, "--help", "-h"):
            args = [_SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Record,
    rich_markup_mode=None,
    help="Show the promotion record of a version (`record 2`) or of all, or verify that nobody has changed it.",
)


@app.command(_SHOW)
@on_project
def show(
    project: Project,
    *,
    version: Annotated[
        str | None, typer.Argument(help="champion, challenger, base, or a version number; all without it.")
    ] = None,
    evidence: Annotated[Path | None, typer.Option(help="Folder to write the files that these entries name to.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show gates, promotions, refusals, rollbacks and approvals with their evidence; `show` may be left out."""
    name, workspace = project.policy.registered_model, project.workspace
    registry = open_registry(workspace, name)
    which = version if version is None or version.isdigit() else registry.version(version)
    entries = PromotionRecord.of(workspace).entries(name)
    before = _before(registry, entries)
    found = [entry for entry in entries if which in (None, entry.version)]
    earlier = [promotion for promotion in before if which in (None, promotion.version)]
    if evidence is not None:
        _write_evidence(found, workspace, folder=evidence)
    with reporting(as_json=as_json) as document:
        document(found)
    if as_json:
        return
    if which is not None and not found and not earlier:
        if which in registry.versions():
            raise UserError(f"nothing is on record of version {which} of {name!r}: no gate has seen it yet")
        raise UserError(f"nothing is on record of a version {which[:80]} of {name!r}, and there is none")
    _say_earlier(registry, earlier, which=which)
    if which is None:
        console.print(_list(entries, name) if entries else "The promotion record has no entry yet.")
    for entry in found if which is not None else []:
        console.print(*page_of(entry), sep="\n")
    if said := registry.off_record(entries):
        console.print(Text(f"Not as recorded: {said}; see python run.py record verify", style="bold red"))


@app.command("verify")
@on_project
def verify(
    project: Project,
    *,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the public key that the signatures must be of.")
    ] = None,
    head: Annotated[
        str, typer.Option(help="Hash of an entry, kept elsewhere, that the record must hold.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """See whether any entry was changed, removed, added or reordered, and whether the files it names are the same."""
    from ontopic.registry import record_check, record_signing

    workspace = project.workspace
    record = PromotionRecord.of(workspace)
    known = {line.entry.registered_model for line in record.lines() if line.entry is not None}
    found = record_check.check_record(
        record,
        workspace=workspace,
        registries=[open_registry(workspace, name) for name in sorted(known | set(registered_models(workspace)))],
        key=None if public_key is None else record_signing.public_key(public_key),
        head=head.strip().lower(),
    )
    with reporting(as_json=as_json) as document:
        document(found)
        for said in (*found.notes, *(f"WRONG: {fault}" for fault in found.faults)):
            console.print(visible(said))
    if found.faults:
        faults = "1 fault is" if len(found.faults) == 1 else f"{len(found.faults)} faults are"
        raise UserError(f"{record.kept}: is not as it was written; {faults} listed above")
    if as_json:
        return
    by_key = f", {found.signed} of them signed by this key" if public_key else ""
    console.print(f"entries: {found.entries}{by_key}, files: {found.files}; all are as they were written")
    console.print(f"head: {found.head} (keep it elsewhere, and give it to --head later)")


def _write_evidence(entries: Sequence[Entry], workspace: Workspace, *, folder: Path) -> None:
    """Each file under the name that it has, in a folder that is called as the gate's."""
    for entry in entries:
        files: Any = entry.facts.get("files")
        for name in files if isinstance(files, dict) else ():
            try:
                if ".." in Path(name).parts:
                    raise FileNotFoundError(name)
                content = workspace.files.read(workspace.root / name)
            except FileNotFoundError:
                print(f"{visible(name)}: is not there; see python run.py record verify", file=sys.stderr)
                continue
            out = folder / Path(name).parent.name / Path(name).name
            with writing(out):
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(content)


def _before(registry: ModelRegistry, entries: Sequence[Entry]) -> list[Promotion]:
    """Moves of before the record began, which only the registry has."""
    moves = [move for move in registry.promotions() if move.entry is None]
    return [move for move in moves if not entries or move.at < entries[0].at]


def _say_earlier(registry: ModelRegistry, earlier: Sequence[Promotion], *, which: str | None) -> None:
    if not earlier:
        return
    console.print(
        Text("Before the record began (from the registry's tags, which anyone can write who may write to it)")
    )
    for move in earlier:
        verb = "rolled back to" if move.rollback else "promoted"
        line = f"  {move.at:%Y-%m-%d %H:%M} UTC  version {move.version} {verb} by {move.by}: {move.why}"
        console.print(Text(visible(line)))
    tags = registry.tags_of(which) if which is not None and which in registry.versions() else {}
    for key in sorted(key for key in tags if key.startswith(GATE)):
        console.print(Text(visible(f"  {key}: {tags[key]}")))
    console.print()


def _list(entries: Sequence[Entry], name: str) -> Table:
    table = Table(box=box.SIMPLE, padding=0, title=f"The promotion record of {name}")
    for column in ("entry", "time (UTC)", "version", "what", "by", "why"):
        table.add_column(column, justify="right" if column in ("entry", "version") else "left", overflow="fold")
    for entry in entries:
        row = (f"{entry.at:%Y-%m-%d %H:%M}", entry.version, entry_in_words(entry), entry.by, entry.why)
        table.add_row(str(entry.number), *map(visible, row))
    return table
