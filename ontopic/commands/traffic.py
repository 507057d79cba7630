"""``traffic``: what is stored, and import, export, pruning and sending."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.options import Project, SkipBad, beginning, console, on_project, say_skipped
from ontopic.config.durations import duration
from ontopic.errors import UserError

if TYPE_CHECKING:
    from ontopic.state.workspace import Workspace
    from ontopic.traffic.store import TrafficStore, TrafficSummary

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@on_project
def traffic(context: typer.Context, project: Project) -> None:
    """Say what traffic is stored; or import, export, prune or send some."""
    name = _name(project.workspace)
    with stored_traffic(project.workspace) as store:
        summary = store.summary()
    if not summary.n:
        raise UserError(f"{name}: there is no traffic yet; run the loop, serve a model or import some")
    console.print(overview(summary, name))


def overview(summary: TrafficSummary, name: str) -> Group:
    """What a store holds, by model version, and how much personal data was redacted."""
    table = Table(box=box.SIMPLE, padding=0, title=f"{summary.n:,} records in {name}")
    for column in ("model version", "records", "from (UTC)", "to (UTC)"):
        justify: Literal["left", "right"] = "right" if column == "records" else "left"
        table.add_column(column, justify=justify, no_wrap=column != "model version")
    for each in summary.versions:
        times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in (each.first, each.last)]
        table.add_row(each.model_version or "unknown", f"{each.n:,}", *times)
    counts = ", ".join(f"{n:,} of kind {kind}" for kind, n in summary.redacted.items())
    return Group(table, Text(f"Personal data taken out: {counts or 'nothing'}"))


@app.command("import")
@beginning
def import_records(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet: records, OpenAI-style chats, MLflow traces.")],
    project: Project,
    *,
    skip_bad: SkipBad = False,
) -> None:
    """Store the records of a file. An import that was stopped is taken up again; nothing is stored twice."""
    from ontopic.traffic.files import import_traffic
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(project.workspace.traffic) as store:
        done = import_traffic(file, store, skip_bad=skip_bad)
    say_skipped(done.skipped)
    print(f"{done.stored} records were stored, {done.known} were there already; in {_name(project.workspace)}")


@app.command("export")
@on_project
def export_records(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    project: Project,
    *,
    to: Annotated[
        Literal["jsonl", "parquet", "openai", "mlflow"] | None,
        typer.Option("--format", help="By default parquet for a name that ends so, else jsonl."),
    ] = None,
) -> None:
    """Write all records to a file, in order of time."""
    from ontopic.traffic.files import export_traffic

    with stored_traffic(project.workspace) as store:
        n = export_traffic(store, out, to=to)
    print(f"{n} records are in {out}")


@app.command("prune")
@on_project
def prune(
    project: Project,
    *,
    older_than: Annotated[str | None, typer.Option(help="Delete what is older, such as 90d or 12h.")] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="Delete all but the newest so many.")] = None,
) -> None:
    """Delete old records for good."""
    if older_than is None and keep is None:
        raise UserError("nothing says what to delete; give --older-than, --keep or both")
    windows_file = project.workspace.windows
    with stored_traffic(project.workspace) as store:
        deleted = store.prune(None if older_than is None else duration(older_than), keep)
        if windows_file.is_file():
            from ontopic.monitoring.windows import WindowStore

            with WindowStore(windows_file) as windows:  # a verdict's explanation can quote its record
                windows.forget(store.oldest() or datetime.now(UTC))
        print(f"{deleted} records were deleted, {store.count()} are left")


@app.command("send")
@beginning
def send(
    project: Project,
    *,
    questions: Annotated[Path, typer.Option(help="Questions with `question` and boolean `in_scope`.")],
    rate: Annotated[float, typer.Option(help="Questions a second.")],
    in_scope_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of in-scope questions; by default as in the file."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many to ask; each of the file once by default.")] = None,
    url: Annotated[str | None, typer.Option(help="An OpenAI-compatible server, with its /v1.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name there.")] = None,
    api_key_variable: Annotated[str | None, typer.Option(help="The environment variable that holds the key.")] = None,
) -> None:
    """Ask questions at a rate, whether or not the earlier ones are answered, of the model that `serve` serves."""
    from ontopic.data.labelled import Question
    from ontopic.data.rows import load_rows
    from ontopic.progress import progress
    from ontopic.traffic.asking import Sent, ask_at_rate, key_of, questions_to_send

    port = project.settings.serving.port
    if not 0 < rate < math.inf:
        raise UserError(f"--rate {rate} is not a rate; give a number of questions a second above 0")
    if url is None and not port:
        raise UserError("serving.port is 0, so the server's port is not known; give its address with --url")
    api_key = key_of(api_key_variable)
    chosen = questions_to_send(load_rows(questions, Question).rows, count, in_scope_share=in_scope_share)
    sent = Sent()
    with progress("questions", len(chosen), unit="questions", status=lambda: str(sent)) as advance:
        ask_at_rate(
            chosen,
            url or f"http://127.0.0.1:{port}/v1",
            model=model or project.policy.registered_model,
            api_key=api_key,
            max_tokens=project.settings.traffic.max_tokens,
            rate=rate,
            sent=sent,
            advance=advance,
        )
    print(sent)
    if not sent.answered:
        raise UserError(f"no question was answered ({sent.error}); check that a server runs there: python run.py serve")
    if sent.failed:
        print(f"the first failure: {sent.error}")


def stored_traffic(workspace: Workspace) -> TrafficStore:
    """The traffic store.

    Raises:
        UserError: there is none yet.
    """
    from ontopic.traffic.store import TrafficStore

    if isinstance(workspace.traffic, Path) and not workspace.traffic.is_file():
        raise UserError(f"{workspace.traffic}: there is no traffic yet; run the loop, serve a model or import some")
    return TrafficStore(workspace.traffic)


def _name(workspace: Workspace) -> str:
    from ontopic.traffic.store import store_name

    return store_name(workspace.traffic)
