"""``preferences``: the pairs that the next training will see; shown, exported, and edited."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, JsonValue
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.listing import Commands
from ontopic.commands.options import (
    By,
    Project,
    Why,
    account,
    beside,
    console,
    on_project,
    printable,
    reason,
    who,
)
from ontopic.commands.reporting import AsJson, reporting
from ontopic.errors import UserError
from ontopic.progress import working
from ontopic.registry.promotions import open_registry
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.training.preference_edits import PreferenceEdit
    from ontopic.training.preferences import Preference
    from ontopic.watch.next_training import NextTraining

app = typer.Typer(cls=Commands, rich_markup_mode=None)
PairId = Annotated[str, typer.Argument(help="The pair's id, as it is listed and exported.")]
_MOST_SHOWN = 300  # characters of a text of a sample
_SCOPES = {True: "in scope", False: "out of scope"}


class PairsOf(BaseModel):
    """How many pairs the next training sees from a source, in scope or out of it."""

    model_config = ConfigDict(frozen=True)
    source: str
    in_scope: bool
    pairs: int


class PreferencesShown(BaseModel):
    """What pairs the next training will see; the fields named so are those of ``NextTraining``.

    Attributes:
        sha256: of the pairs.
        ids: of the pairs, as ``show`` takes them.
        edits: what people changed, without the texts that they gave.
    """

    model_config = ConfigDict(frozen=True)
    champion: str
    pairs: list[PairsOf]
    sha256: str
    records: int
    held_apart: int
    unwritten: int
    ids: list[str]
    edits: list[dict[str, JsonValue]]

    @classmethod
    def of(cls, training: NextTraining, edits: Sequence[PreferenceEdit]) -> PreferencesShown:
        """What is told of a training."""
        counted = training.seen.by_source_and_scope.items()
        told = {"pair", "what", "by", "account", "why", "at"}
        return cls(
            champion=training.champion,
            pairs=[PairsOf(source=source, in_scope=in_scope, pairs=n) for (source, in_scope), n in counted],
            sha256=training.seen.sha256,
            records=training.records,
            held_apart=training.held_apart,
            unwritten=training.unwritten,
            ids=list(training.seen.ids),
            edits=[edit.model_dump(mode="json", include=told) for edit in edits],
        )


@app.callback(invoke_without_command=True)
@on_project
def preferences(
    context: typer.Context,
    project: Project,
    *,
    number: Annotated[
        int, typer.Option("-n", "--number", min=0, help="How many samples to show of each source and scope.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Say what pairs the next training will see; or show, export, drop or change some."""
    with reporting(as_json=as_json) as document:
        training = next_of(project)
        document(PreferencesShown.of(training, list(_standing(project).values())))
    if as_json:
        return
    console.print(_overview(training, project))
    console.print(*_edits(training, project), sep="\n")
    shown: dict[tuple[str, bool], int] = {}
    for pair_id, pair in zip(training.seen.ids, training.seen.pairs, strict=True):
        kind = (pair.source, pair.in_scope)
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] <= number:
            console.print(*_sample(pair_id, pair), sep="\n")


@app.command("show")
@on_project
def show(pair: PairId, project: Project, *, as_json: AsJson = False) -> None:
    """Print a pair as a whole, with the conversation that it is in."""
    from ontopic.records import transcript

    with reporting(as_json=as_json) as document:
        found = _found(next_of(project), pair)
        document(found)
    if as_json:
        return
    heads = {"chosen": found.chosen, "rejected": found.rejected}
    lines = [*transcript(found.messages).splitlines(), *_about(pair, found)]
    for name, text in heads.items():
        lines += [f"{name}:", *(f"| {line}" for line in text.splitlines())]
    console.print(*(Text(visible(line)) for line in lines), sep="\n")


@app.command("export")
@on_project
def export(
    out: Annotated[Path, typer.Argument(help="File to write; for the hub a repository, as OWNER/NAME.")],
    project: Project,
    *,
    to: Annotated[
        Literal["jsonl", "parquet", "hub"] | None,
        typer.Option(
            help="By default parquet for a name that ends so, else jsonl; hub pushes parquet with HF_TOKEN to a "
            "private repository."
        ),
    ] = None,
) -> None:
    """Write the pairs to a file, as TRL takes them; it can be given back under training.preference_sets."""
    if to == "hub":
        n, at = _push_preferences(project, str(out))
        console.print(f"{n} pairs are on the hub: {at}")
        return
    with beside(out):
        n = export_preferences(project, out, to=to)
        console.print(f"{n} pairs are in {out}")


def _push_preferences(project: Project, repository: str) -> tuple[int, str]:
    """How many pairs were pushed, and where they are."""
    from ontopic.models.hub_push import check_pushable, push

    check_pushable(repository)
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "train.parquet"
        n = export_preferences(project, pairs)
        card = (
            f"---\ntask_categories: [text-generation]\n---\n# Preferences of the policy {project.policy.name}\n\n{n} "
            "pairs that the next ORPO training would see: `prompt`, `chosen`, `rejected`, as TRL takes them, from this "
            "policy's traffic, labels and corrections. They hold what users wrote: keep the repository private.\n"
        )
        files: dict[str, Path | bytes] = {"train.parquet": pairs, "README.md": card.encode()}
        return n, push(files, repository, kind="dataset", message=f"{n} pairs of {project.policy.name}")


@app.command("drop")
@on_project
def drop(pair: PairId, project: Project, *, why: Why, by: By = None) -> None:
    """Leave a pair out of the trainings to come."""
    from ontopic.training.preference_edits import edit_of

    given = _found(next_of(project), pair)
    edit = edit_of(given, pair, what="drop", by=who(by), account=account(), why=reason(why))
    _keep(edit, project)
    back = f"take that back: python run.py preferences restore {pair}"
    console.print(f"pair {pair} is left out of the trainings to come; {back}")


@app.command("change")
@on_project
def change(
    pair: PairId,
    project: Project,
    *,
    why: Why,
    chosen: Annotated[str | None, typer.Option(help="The better answer in place of the pair's.")] = None,
    rejected: Annotated[str | None, typer.Option(help="The worse answer in place of the pair's.")] = None,
    by: By = None,
) -> None:
    """Put other answers in a pair, in the trainings to come."""
    from ontopic.training.preference_edits import edit_of

    given = {"chosen": chosen, "rejected": rejected}
    answers: Any = {name: printable(text) for name, text in given.items() if text is not None}
    if not answers:
        raise UserError("nothing says what to change; give --chosen, --rejected or both")
    before = _found(next_of(project), pair)
    standing = _standing(project).get(pair)
    if standing is not None:  # what was changed before stays changed
        kept = {"chosen": standing.chosen, "rejected": standing.rejected}
        answers = {name: text for name, text in kept.items() if text is not None} | answers
    edit = edit_of(before, pair, what="change", by=who(by), account=account(), why=reason(why), answers=answers)
    _keep(edit, project)
    back = f"take that back: python run.py preferences restore {pair}"
    console.print(f"pair {pair} is changed in the trainings to come; {back}")


@app.command("restore")
@on_project
def restore(pair: PairId, project: Project, *, why: Why, by: By = None) -> None:
    """Take the edit of a pair back."""
    from datetime import UTC, datetime

    standing = _standing(project).get(pair)
    if standing is None:
        raise UserError(f"pair {pair[:40]!r} is not edited; see python run.py preferences")
    named = {"by": who(by), "account": account(), "why": reason(why), "at": datetime.now(UTC)}
    _keep(standing.model_copy(update={"what": "restore", "chosen": None, "rejected": None} | named), project)
    console.print(f"pair {pair} is as it was in the trainings to come")


def next_of(project: Project) -> NextTraining:
    """What the next training of a project will see."""
    from ontopic.watch.next_training import next_training

    project.settings.check_weights("a training")
    with working():
        return next_training(project.settings, project.policy, workspace=project.workspace)


def export_preferences(project: Project, out: Path, *, to: Literal["jsonl", "parquet"] | None = None) -> int:
    """Write the pairs that the next training will see to a file, in TRL's form; returns how many.

    Args:
        to: by default ``parquet`` for a name that ends so, else ``jsonl``.

    Raises:
        UserError: there are none, or the file can't be written.
    """
    from ontopic.state.whole_file import check_writable
    from ontopic.training.preference_files import write_preferences

    check_writable(out)
    training = next_of(project)
    if not training.seen.pairs:
        raise UserError(f"there are no pairs to export: the next training is {training.in_words}")
    return write_preferences(training.seen.pairs, out, ids=training.seen.ids, to=to)


def _found(training: NextTraining, pair_id: str) -> Preference:
    found = training.seen.pair(pair_id)
    if found is None:
        raise UserError(
            f"the next training sees no pair {pair_id[:40]!r}; ids are in the list of python run.py preferences, and "
            "in what it exports"
        )
    return found


def _standing(project: Project) -> dict[str, PreferenceEdit]:
    from ontopic.training.preference_edits import PreferenceEdits

    return PreferenceEdits.of(project.policy, project.workspace).standing()


def _keep(edit: PreferenceEdit, project: Project) -> None:
    """Enter it in the promotion record, without a text, and keep it."""
    from ontopic.training.preference_edits import PreferenceEdits

    registry = open_registry(project.workspace, project.policy.registered_model)
    facts = {
        "what": {"drop": "dropped", "change": "changed", "restore": "restored"}[edit.what],
        "pair": edit.pair,
        "source": edit.source,
        "in_scope": edit.in_scope,
        "account": edit.account,
    }
    registry.enter("edit", "", by=edit.by, why=edit.why, facts=facts, at=edit.at)
    PreferenceEdits.of(project.policy, project.workspace).add(edit)


def _overview(training: NextTraining, project: Project) -> Group:
    seen = training.seen
    table = Table(box=box.SIMPLE, padding=0, title=f"{len(seen.pairs):,} pairs of {project.policy.registered_model}")
    for column in ("source", "scope", "pairs"):
        table.add_column(column, justify="right" if column == "pairs" else "left")
    for (source, in_scope), n in seen.by_source_and_scope.items():
        table.add_row(visible(source), _SCOPES[in_scope], f"{n:,}")
    lines = [f"Seen {training.in_words}: {training.records:,} judged records"]
    if training.held_apart:
        lines.append(
            f"{training.held_apart:,} more are left out, as they are nearly questions of the evaluation or calibration "
            "split"
        )
    lines += _unwritten(training, project)
    for number, each in enumerate(seen.sets, start=1):
        drawn = sum(pair.source == f"set {number}" for pair in seen.pairs)
        left_out = f"; {each.left_out:,} rows are left out" if each.left_out else ""
        lines.append(f"set {number}: {drawn:,} of {len(each.pairs):,} pairs of {each.source}{left_out}")
    lines.append(f"sha256 {seen.sha256}")
    return Group(table, *(Text(visible(line)) for line in lines))


def _unwritten(training: NextTraining, project: Project) -> Iterator[str]:
    if project.settings.teacher is not None:
        yield "The teacher writes the chosen answers in scope once the training begins; these show what there is so far"
    elif training.unwritten and project.settings.training.best_of > 1:
        yield (
            f"{training.unwritten:,} questions in scope have no written answer: the training samples "
            f"{project.settings.training.best_of} of the model's own, and the judge chooses; such pairs may differ"
        )


def _edits(training: NextTraining, project: Project) -> Iterator[Text]:
    standing = _standing(project)
    if not standing:
        return
    yield Text(f"\n{len(standing)} edits: {training.seen.dropped} pairs dropped, {training.seen.changed} changed")
    for edit in standing.values():
        done = "dropped" if edit.what == "drop" else "changed"
        gone = "; there is no such pair now" if edit.pair in training.seen.unused_edits else ""
        yield Text(visible(f"  {edit.pair}  {done} by {edit.by}, {edit.at:%Y-%m-%d %H:%M} UTC: {edit.why}{gone}"))
        yield Text(f"    {_short(edit.question)}")


def _sample(pair_id: str, pair: Preference) -> Iterator[Text]:
    yield Text()
    yield from (Text(visible(line), style="bold") for line in _about(pair_id, pair))
    for name in ("question", "chosen", "rejected"):
        yield Text(f"  {name:<9} {_short(getattr(pair, name))}")


def _about(pair_id: str, pair: Preference) -> list[str]:
    parts = "; only how the answers begin is compared" if pair.beginnings else ""
    earlier = f"; after {len(pair.history)} earlier messages" if pair.history else ""
    return [f"pair {pair_id}: {_SCOPES[pair.in_scope]}, chosen from {pair.source}{parts}{earlier}"]


def _short(text: str) -> str:
    return visible(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")
