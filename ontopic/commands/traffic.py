"""``traffic``: what is stored, and import, export, pruning and sending."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ontopic.commands.erasure import RECORDS, confirm, erase, order_of, spools
from ontopic.commands.listing import Commands
from ontopic.commands.options import Project, SkipBad, beginning, beside, console, on_project, say_skipped
from ontopic.commands.reporting import AsJson, reporting
from ontopic.config.durations import duration
from ontopic.errors import UserError
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.state.erasing import Erasing, Order
    from ontopic.state.workspace import Workspace
    from ontopic.traffic.asking import Sent
    from ontopic.traffic.store import TrafficStore, TrafficSummary

app = typer.Typer(cls=Commands, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
@on_project
def traffic(context: typer.Context, project: Project, *, as_json: AsJson = False) -> None:
    """Say what traffic of the policy is stored; or import, export, erase, prune or send some."""
    name, model = _name(project.workspace), project.policy.registered_model
    with stored_traffic(project.workspace, model) as store:
        summary, ahead = store.summary(), store.ahead()
    if not summary.n and not as_json:
        raise UserError(
            f"{name}: there is no traffic of {model} yet; run the loop, serve a model or import some{_others(summary)}"
        )
    with reporting(as_json=as_json) as document:
        document(summary)
        if not as_json:
            console.print(overview(summary, name))
            for spool in _spools(project.workspace):
                console.print(spool)
        if ahead:
            console.print(
                f"{ahead:,} of them bear a time more than a day ahead, which is wrong: they are in no window, and "
                "count as asked when they were stored where old records are pruned"
            )


def overview(summary: TrafficSummary, name: str) -> Group:
    """What a store holds of a policy, by model version, how much personal data was redacted, and what it else holds."""
    models = ", ".join(dict.fromkeys(each.registered_model for each in summary.versions))
    table = Table(box=box.SIMPLE, padding=0, title=f"{summary.n:,} records in {name}, of {models}")
    for column in ("model version", "records", "from (UTC)", "to (UTC)"):
        justify: Literal["left", "right"] = "right" if column == "records" else "left"
        table.add_column(column, justify=justify, no_wrap=column != "model version")
    for each in summary.versions:
        times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in (each.first, each.last)]
        table.add_row(visible(each.model_version) or "unknown", f"{each.n:,}", *times)
    counts = ", ".join(f"{n:,} of kind {kind}" for kind, n in summary.redacted.items())
    return Group(table, Text(f"Personal data taken out: {counts or 'nothing'}{_others(summary)}"))


def _spools(workspace: Workspace) -> list[str]:
    """What waits in spools, where machines share what is known of them."""
    if workspace.state_url is None:
        return []
    from ontopic.traffic.spool_index import known_spools

    return [spool.in_words for spool in known_spools(workspace.state_url)]


def _others(summary: TrafficSummary) -> str:
    others = ", ".join(f"{n:,} of {visible(model) or 'no policy'}" for model, n in summary.others.items())
    return f". Records of others there: {others}" if others else ""


@app.command("import")
@beginning
def import_records(
    file: Annotated[Path, typer.Argument(help="JSONL or Parquet: records, chats, MLflow traces, other tools' logs.")],
    project: Project,
    *,
    skip_bad: SkipBad = False,
) -> None:
    """Store the records of a file. An import that was stopped is taken up again; nothing is stored twice."""
    from ontopic.registry.unnamed import named
    from ontopic.traffic.files import import_traffic
    from ontopic.traffic.identity import names_key
    from ontopic.traffic.store import TrafficStore

    model, workspace = project.policy.registered_model, project.workspace
    with named(TrafficStore(workspace.traffic, model), workspace) as store:
        done = import_traffic(file, store, user_key=names_key(workspace), skip_bad=skip_bad)
    say_skipped(done.skipped)
    console.print(f"{done.stored} records were stored, {done.known} were there already; in {_name(workspace)}")
    if done.feedback:
        console.print(f"{done.feedback} thumbs on them, with their comments and corrections, are kept")
    if done.aside:
        console.print(f"{done.aside} rows are no answers to requests, such as another tool's spans, and were left out")
    if done.others:
        stays = "another policy's and stay so: a record's id is there once in a store"
        console.print(f"{done.others} of these are {stays}")


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
    """Write the policy's records to a file, in order of time."""
    from ontopic.traffic.files import export_traffic

    with beside(out):
        with stored_traffic(project.workspace, project.policy.registered_model) as store:
            n = export_traffic(store, out, to=to)
        console.print(f"{n} records are in {out}")


@app.command("prune")
@on_project
def prune(
    project: Project,
    *,
    older_than: Annotated[str | None, typer.Option(help="Delete what is older, such as 90d or 12h.")] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="Delete all but the newest so many.")] = None,
) -> None:
    """Delete old records of the policy for good, everywhere they went; another policy's stay."""
    if older_than is None and keep is None:
        raise UserError("nothing says what to delete; give --older-than, --keep or both")
    from ontopic.traffic.erasure import collect

    age = None if older_than is None else duration(older_than)
    with stored_traffic(project.workspace, project.policy.registered_model) as store:

        def outdated(erasing: Erasing) -> Order | None:
            collect(store, store.outdated(age, keep), erasing=erasing)
            return order_of(erasing, "old traffic expired", project=project, of_person=False)

        counts = erase(project.workspace, outdated, tell=print)
        console.print(f"{counts.get(RECORDS, 0)} records were deleted, {store.count()} are left")


@app.command("erase")
@on_project
def erase_traffic(
    project: Project,
    *,
    user: Annotated[str | None, typer.Option(help="All that this user asked: the name that the client sends.")] = None,
    conversation: Annotated[str | None, typer.Option(help="A conversation, by its id.")] = None,
    record: Annotated[str | None, typer.Option(help="A record, by its id.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a user, a conversation or a record for good, everywhere it went, also among other policies' traffic."""
    from ontopic.traffic.erasure import Selection, collect, collect_spooled
    from ontopic.traffic.identity import conversation_id, names_key, user_hash
    from ontopic.traffic.store import TrafficStore

    given = {"user": user, "conversation": conversation, "record": record}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1 or not all(value.strip() for value in named.values()):
        raise UserError("erase takes exactly one of --user, --conversation and --record, and whom or what it is of")
    workspace = project.workspace
    stored_traffic(workspace, project.policy.registered_model).close()
    key = names_key(workspace)
    selection = Selection(
        user=user_hash(user or "", key),
        conversation=conversation_id(conversation or "", key),
        record=record or "",
    )

    def selected(erasing: Erasing) -> Order | None:
        with TrafficStore(workspace.traffic) as store:
            collect(store, [selection.ids(store)], erasing=erasing)
        collect_spooled(spools(workspace), selection.fits, erasing=erasing)
        order = order_of(erasing, f"a {next(iter(named))} was erased", project=project, of_person=True)
        if order is not None and not yes:
            confirm(f"{erasing.n():,} records will be erased for good, everywhere they went")
        return order

    if not erase(workspace, selected, tell=print):
        raise UserError(f"{_name(workspace)}: nothing of this {next(iter(named))} is stored; check the name or id")


@app.command("adopt")
@on_project
def adopt(project: Project) -> None:
    """Say that what an older release stored without a policy's name is of this policy."""
    from ontopic.watch.stores import stores_of

    n = 0
    for store in stores_of(project.workspace, project.policy.registered_model):
        with store:
            n += store.adopt(project.policy.registered_model)
    console.print(f"{n} rows are of {project.policy.registered_model} now")


@app.command("send")
@beginning
def send(  # noqa: PLR0913  # each is an option that somebody sets
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
    api_key_variable: Annotated[
        str | None, typer.Option(help="The environment variable that holds the key; OPENAI_API_KEY by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask questions at a rate, whether or not the earlier ones are answered, of the model that `serve` serves."""
    from ontopic.config.settings import EndpointSettings
    from ontopic.data.labelled import Question
    from ontopic.data.rows import load_rows
    from ontopic.endpoint.client import base_url_of
    from ontopic.progress import progress
    from ontopic.traffic.asking import NO_KEY, Sent, ask_at_rate, key_of, questions_to_send

    port = project.settings.serving.port
    if not 0 < rate < math.inf:
        raise UserError(f"--rate {rate} is not a rate; give a number of questions a second above 0")
    if url is None and not port:
        raise UserError("serving.port is 0, so the server's port is not known; give its address with --url")
    served = EndpointSettings.model_validate({"model": "", "base_url": url or f"http://127.0.0.1:{port}/v1"})
    base_url, api_key = str(base_url_of(served)), key_of(api_key_variable)
    chosen = questions_to_send(load_rows(questions, Question).rows, count, in_scope_share=in_scope_share)
    sent = Sent()
    with reporting(as_json=as_json) as document:
        with progress("questions", len(chosen), unit="questions", status=lambda: str(sent)) as advance:
            ask_at_rate(
                (question.messages for question in chosen),
                base_url,
                model=model or project.policy.registered_model,
                api_key=api_key,
                max_tokens=project.settings.traffic.max_tokens,
                rate=rate,
                sent=sent,
                advance=advance,
            )
        console.print(str(sent))
        document(sent.shown())
    if sent.refusal or not sent.answered:
        raise UserError(_refusal(sent, base_url, key_variable=api_key_variable, has_key=api_key != NO_KEY))
    if sent.failed and not as_json:
        console.print(f"the first failure: {sent.error}")


def _refusal(sent: Sent, url: str, *, key_variable: str | None, has_key: bool) -> str:
    """Why asking came to nothing, or stopped, and what to do about that."""
    from ontopic.traffic.asking import KEY_VARIABLE

    variable = key_variable or KEY_VARIABLE
    what = "no question was answered" if not sent.answered else "the rest was not asked"
    if sent.refusal == "key" and not has_key:
        return f"{what}: {url} asks for a key ({sent.error}), and {variable} is not set; put a key there"
    if sent.refusal == "key":
        another = "" if key_variable else ", or name another variable with --api-key-variable"
        return f"{what}: {url} refuses the key in {variable} ({sent.error}); put a valid one there{another}"
    if sent.refusal == "refused":
        return f"{what}: {url} refuses the requests ({sent.error}); see to the key in {variable} and what it may do"
    if sent.refusal == "model":
        return f"{what}: {url} has no such model or no such path ({sent.error}); see --model, and --url with its /v1"
    if sent.refusal == "quota":
        return f"{what}: the quota at {url} is spent ({sent.error}); raise it, or use another key"
    hint = "; check that a server runs there: python run.py serve" if "APIConnectionError" in str(sent.error) else ""
    return f"{what} at {url} ({sent.error}){hint}"


def stored_traffic(workspace: Workspace, registered_model: str) -> TrafficStore:
    """The traffic of a registered model.

    Raises:
        UserError: there is no store yet, or it is of an older release and does not say of which policy it is.
    """
    from ontopic.registry.unnamed import named
    from ontopic.state.workspace import is_there
    from ontopic.traffic.store import TrafficStore

    if not is_there(workspace.traffic):
        raise UserError(f"{workspace.traffic}: there is no traffic yet; run the loop, serve a model or import some")
    return named(TrafficStore(workspace.traffic, registered_model), workspace)


def _name(workspace: Workspace) -> str:
    from ontopic.state.database import database_name

    return database_name(workspace.traffic)
