"""The commands ``serve`` and ``keys``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich import box
from rich.table import Table

from ontopic.commands.options import LOCAL, STATE, Config, State, console, open_, version_of
from ontopic.config.durations import duration
from ontopic.errors import UserError
from serving.keys import Key, KeyStore

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Make, list and revoke API keys.")


def serve(
    host: Annotated[str, typer.Option(help="IP address to listen on; 0.0.0.0 is open to the network.")] = "127.0.0.1",
    *,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Ask for no API key; on this machine only.")] = False,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Serve the champion, and whichever comes after it, behind an OpenAI-compatible API until Ctrl-C."""
    settings, policy, workspace = open_(config, state)
    version = version_of("champion", policy, workspace)
    from serving.process import ServedModel, Serving

    served = ServedModel(
        Serving(
            model_folder=version.folder,
            model_version=version.version,
            model_name=policy.registered_model,
            traffic=workspace.traffic,
            state=workspace.root,
            port=settings.serving.port,
            max_new_tokens=settings.model.max_new_tokens,
            host=host,
            keys=workspace.keys,
            no_auth=no_auth,
            follow=workspace.mlflow_uri,
            spool=settings.serving.spool,
            precision=settings.model.precision,
        )
    )
    if not no_auth and not _any_valid_key(workspace.keys):
        print("there is no API key yet, so all are refused; make one: python run.py keys make NAME", file=sys.stderr)
    try:
        with served:
            print(
                f"version {version.version} of {policy.registered_model} at {served.base_url}; Ctrl-C ends it",
                flush=True,
            )
            while served.is_alive():
                time.sleep(1)
            raise UserError(f"the served model ended; see {served.log}")
    except KeyboardInterrupt:
        print("stopped")


@app.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    requests_per_minute: Annotated[int | None, typer.Option(min=1, max=100_000, help="No limit by default.")] = None,
    *,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="Of prompts and answers; no limit by default.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, such as 90d or 12h; never by default.")] = None,
    config: Config = LOCAL,
    state: State = STATE,
) -> None:
    """Make an API key and print it, this once."""
    _, _, workspace = open_(config, state)
    expires_in = None if expires is None else duration(expires)
    if expires_in is not None and not expires_in:
        raise UserError(f"--expires {expires} is over at once; give days or hours from now, such as 90d")
    key = KeyStore(workspace.keys).make(
        name, requests_per_minute, tokens_per_minute=tokens_per_minute, expires_in=expires_in
    )
    print(f"the key of {name}; it is shown this once:", file=sys.stderr)
    print(key)


@app.command("list")
def list_keys(config: Config = LOCAL, state: State = STATE) -> None:
    """List the API keys: their names, beginnings, limits and whether they are valid."""
    _, _, workspace = open_(config, state)
    keys = KeyStore(workspace.keys).all()
    if not keys:
        raise UserError("there is no API key yet; make one: python run.py keys make NAME")
    console.print(keys_table(keys, datetime.now(UTC)))


@app.command("revoke")
def revoke_key(
    name: Annotated[str, typer.Argument(help="The name that it was made with.")],
    config: Config = LOCAL,
    *,
    state: State = STATE,
) -> None:
    """Make an API key invalid for good; a running service refuses it within two seconds."""
    _, _, workspace = open_(config, state)
    KeyStore(workspace.keys).revoke(name)
    print(f"the key {name} is revoked")


def keys_table(keys: Sequence[Key], now: datetime) -> Table:
    """A row a key: its name, beginning, limits, times and state at ``now``."""
    table = Table(box=box.SIMPLE, padding=0)
    for title in ("name", "key", "requests/min", "tokens/min", "made", "expires", "state"):
        justify: Literal["left", "right"] = "right" if title.endswith("/min") else "left"
        table.add_column(title, no_wrap=title != "name", overflow="fold", justify=justify)
    for key in keys:
        limits = ["–" if n is None else f"{n:,}" for n in (key.requests_per_minute, key.tokens_per_minute)]
        times = [f"{time:%Y-%m-%d}" if time else "never" for time in (key.made_at, key.expires_at)]
        table.add_row(key.name, f"{key.prefix}…", *limits, *times, key.state(now))
    return table


def _any_valid_key(path: Path) -> bool:
    now = datetime.now(UTC)
    return any(key.state(now) == "active" for key in KeyStore(path).all())
