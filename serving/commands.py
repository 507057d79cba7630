"""``ask``, ``serve`` and ``keys``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from ontopic.commands.listing import Commands
from ontopic.commands.options import Project, beginning, check_begun, console, judge_of, on_project, version_of
from ontopic.config.durations import duration
from ontopic.errors import UserError
from ontopic.records import Record, Verdict
from serving.keys import Key, KeyStore

if TYPE_CHECKING:
    from ontopic.config.settings import EndpointSettings

keys = typer.Typer(cls=Commands, rich_markup_mode=None, no_args_is_help=True, help="Make, list and revoke API keys.")


@on_project
def ask(question: Annotated[str, typer.Argument(help="What to ask the champion.")], project: Project) -> None:
    """Ask the champion one question and judge its answer; a service that runs from the state folder is asked."""
    if not question.strip():
        raise UserError("the question is empty; ask something")
    from serving.ask import ask_champion

    answered = ask_champion(project, question)
    print(answered.text, flush=True)
    (verdict,) = judge_of(project).judge([Record(question=question, answer=answered.text)])
    print(f"\nversion {answered.version}, verdict {said(verdict)}")


def said(verdict: Verdict) -> str:
    """A verdict for who reads one answer: it is on the subject, and no word on whether the answer is true."""
    if verdict.outcome == "unjudged":
        return f"unjudged: {verdict.cause}"
    on_topic = "yes" if verdict.outcome == "pass" else "no"
    score = "" if verdict.score is None else f", score {verdict.score:.2f}"
    return f"{verdict.outcome}; on topic: {on_topic}{score} (truth is not judged). {verdict.explanation}".strip()


@beginning
def serve(
    project: Project,
    *,
    host: Annotated[str, typer.Option(help="IP address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no API key; on this machine only.")] = False,
) -> None:
    """Serve the champion, and whichever comes after it, behind an OpenAI-compatible API until Ctrl-C."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    upstream = settings.serving.upstream
    model: dict[str, Any]
    if upstream is None:
        check_begun(workspace)
        print(f"{policy.registered_model} is being started; the model takes some seconds to load", file=sys.stderr)
        version = version_of(project, "champion")
        model = {"model_folder": version.folder, "model_version": version.version, "follow": workspace.mlflow_uri}
        what = f"version {version.version} of {policy.registered_model}"
    else:
        check_upstream(upstream)
        model = {"upstream": upstream, "model_version": upstream.model}
        what = f"{policy.registered_model}, a proxy to {upstream.model},"
    from serving.process import ServedModel, Serving

    served = ServedModel(
        Serving(
            **model,
            model_name=policy.registered_model,
            traffic=workspace.traffic,
            state=workspace.root,
            port=settings.serving.port,
            max_new_tokens=settings.model.max_new_tokens,
            host=host,
            keys=workspace.keys,
            no_auth=no_auth,
            allowed_origins=tuple(settings.serving.allowed_origins),
            spool=settings.serving.spool,
            precision=settings.model.precision,
        )
    )
    if not no_auth and not _any_valid_key(workspace.keys):
        print("there is no API key yet, so all are refused; make one: python run.py keys make NAME", file=sys.stderr)
    try:
        with served:
            print(f"{what} at {served.base_url}; Ctrl-C ends it", flush=True)
            while served.is_alive():
                time.sleep(1)
            raise UserError(f"the served model ended; see {served.log}")
    except KeyboardInterrupt:
        print("stopped")


def check_upstream(upstream: EndpointSettings) -> None:
    """Make sure that a server can be asked: its address is one, its key can be sent, the way there is open.

    Raises:
        UserError: so it is not.
    """
    from ontopic.endpoint.client import llm_client

    llm_client(upstream)


@keys.command("make")
@beginning
def make_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    project: Project,
    *,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, max=100_000, help="No limit by default.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Of prompts and answers; no limit by default.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, such as 90d or 12h; never by default.")] = None,
) -> None:
    """Make an API key and print it, this once."""
    expires_in = None if expires is None else duration(expires)
    if expires_in is not None and not expires_in:
        raise UserError(f"--expires {expires} is over at once; give days or hours from now, such as 90d")
    key = KeyStore(project.workspace.keys).make(
        name, requests_per_minute, tokens_per_minute=tokens_per_minute, expires_in=expires_in
    )
    print(f"the key of {name}; it is shown this once:", file=sys.stderr)
    print(key)


@keys.command("list")
@on_project
def list_keys(project: Project) -> None:
    """List the API keys: their names, beginnings, limits and whether they are valid."""
    found = KeyStore(project.workspace.keys).all()
    if not found:
        raise UserError("there is no API key yet; make one: python run.py keys make NAME")
    console.print(keys_table(found, datetime.now(UTC)))


@keys.command("revoke")
@on_project
def revoke_key(name: Annotated[str, typer.Argument(help="The name that it was made with.")], project: Project) -> None:
    """Make an API key invalid for good; a running service refuses it within two seconds."""
    KeyStore(project.workspace.keys).revoke(name)
    print(f"the key {name} is revoked")


def keys_table(found: Sequence[Key], now: datetime) -> Table:
    """A row a key: its name, beginning, limits, times and state at ``now``."""
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False)
    for title in ("name", "key", "req./min", "tokens/min", "made", "expires", "state"):
        justify: Literal["left", "right"] = "right" if title.endswith("/min") else "left"
        table.add_column(title, no_wrap=title != "name", overflow="fold", justify=justify)
    for key in found:
        limits = ["–" if n is None else f"{n:,}" for n in (key.requests_per_minute, key.tokens_per_minute)]
        times = [f"{time:%Y-%m-%d}" if time else "never" for time in (key.made_at, key.expires_at)]
        table.add_row(key.name, f"{key.prefix}…", *limits, *times, key.state(now))
    return table


def _any_valid_key(path: Path) -> bool:
    now = datetime.now(UTC)
    return any(key.state(now) == "active" for key in KeyStore(path).all())
