"""``ask``, ``serve`` and ``keys``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict
from rich import box
from rich.table import Table

from ontopic.commands.listing import Commands
from ontopic.commands.options import (
    Project,
    beginning,
    check_begun,
    check_has_weights,
    console,
    judge_of,
    on_project,
    version_of,
)
from ontopic.commands.reporting import AsJson, reporting
from ontopic.commands.typed import line, read_any_bytes
from ontopic.config.durations import duration
from ontopic.errors import UserError
from ontopic.judges.local.at_hand import guard_at_hand
from ontopic.progress import working
from ontopic.records import Message, Record, Verdict
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.config.settings import EndpointSettings
    from ontopic.judges.judge import Judge
    from serving.guarding import Guarding
    from serving.keys import Key, KeyStore

keys = typer.Typer(cls=Commands, rich_markup_mode=None, no_args_is_help=True, help="Make, list and revoke API keys.")


@on_project
def ask(
    project: Project,
    question: Annotated[str | None, typer.Argument(help="What to ask the champion; none for a chat.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask the champion a question, or chat with it, and judge its answers; a service that runs from the state folder is
    asked. An empty line or Ctrl-D ends a chat."""
    if question is not None and not question.strip():
        raise UserError("the question is empty; ask something")
    if question is None and as_json:
        raise UserError('--json is for one question, and none is given: python run.py ask "QUESTION" --json')
    if question is None and not sys.stdin.isatty():
        raise UserError('this is no terminal to chat on; give the question: python run.py ask "QUESTION"')
    from serving.ask import Champion

    read_any_bytes()
    champion, before = Champion(project), list[Message]()
    judge: Judge | None = None  # one that is learned first takes minutes, and the answer need not wait
    for asked in [question] if question is not None else _lines():
        messages = (*before, Message(role="user", content=asked))
        with working():
            answered = champion.answer([message.model_dump() for message in messages])
        with reporting(as_json=as_json) as document:
            console.print("\n".join(map(visible, answered.text.split("\n"))))
            record = Record(question=asked, answer=answered.text, messages=messages if before else ())
            with working():
                judge = judge or judge_of(project)
                (verdict,) = judge.judge([record])
            console.print(f"\nversion {answered.version}, verdict {said(verdict)}")
            document(Asked(question=asked, answer=answered.text, version=answered.version, verdict=verdict))
        if question is not None and verdict.outcome == "unjudged":
            raise UserError(f"the answer could not be judged ({verdict.cause}); see to the judge and ask again")
        before = [*messages, Message(role="assistant", content=answered.text)]


class Asked(BaseModel):
    """A question, what which version answers, and the verdict on that."""

    model_config = ConfigDict(frozen=True)
    question: str
    answer: str
    version: str
    verdict: Verdict


def _lines() -> Iterator[str]:
    """What is typed, line by line, until an empty one or the end of the input."""
    console.print("An empty line or Ctrl-D ends the chat.")
    try:
        while asked := line("\n> ").strip():
            yield asked
    except EOFError:
        console.print()


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
    chat_page: Annotated[
        bool, typer.Option("--chat-page", help="Offer a page to chat on, which asks for the key.")
    ] = False,
) -> None:
    """Serve the champion, and whichever comes after it, behind an OpenAI-compatible API until Ctrl-C."""
    settings, policy, workspace = project.settings, project.policy, project.workspace
    model, what = _model_of(project)
    with working():
        guarding = guarding_of(project)
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
            precision=settings.model.answering_precision,
            guarding=guarding,
            chat_page=chat_page,
        )
    )
    if not no_auth and not _any_valid_key(workspace.keys):
        print("there is no API key yet, so all are refused; make one: python run.py keys make NAME", file=sys.stderr)
    try:
        with ExitStack() as running:
            with working():
                running.enter_context(served)
            console.print(f"{what} at {served.base_url}; Ctrl-C ends it")
            if chat_page:
                console.print(f"a page to chat on: {served.base_url.removesuffix('/v1')}/chat")
            while served.is_alive():
                time.sleep(1)
            raise UserError(f"the served model ended; see {served.log}")
    except KeyboardInterrupt:
        console.print("stopped")


def _model_of(project: Project) -> tuple[dict[str, Any], str]:
    """Which model answers, as ``Serving`` has it, and in words."""
    policy, workspace, upstream = project.policy, project.workspace, project.settings.serving.upstream
    if upstream is not None:
        check_upstream(upstream)
        model: dict[str, Any] = {"upstream": upstream, "model_version": upstream.model}
        return model, f"{policy.registered_model}, a proxy to {upstream.model},"
    check_begun(workspace)
    check_has_weights(workspace)
    print(f"{policy.registered_model} is being started; the model takes some seconds to load", file=sys.stderr)
    with working():
        version = version_of(project, "champion")
    model = {"model_folder": version.folder, "model_version": version.version, "follow": workspace.mlflow_uri}
    return model, f"version {version.version} of {policy.registered_model}"


def guarding_of(project: Project) -> Guarding | None:
    """How the model is guarded. An enforced guard gets its card here; one that only watches takes what `calibrate` or
    the loop has left, and is done without where there is none.

    Raises:
        UserError: the guard is to be enforced, and the policy's labelled data gives none.
    """
    settings, policy, workspace = project.settings, project.policy, project.workspace
    if settings.guard == "off":
        return None
    if settings.guard == "enforce":
        from ontopic.judges.guard.card import guard_card

        guard_card(policy, workspace=workspace, budget=settings.serving.guard_budget)
    card = guard_at_hand(policy.registered_model, workspace)
    if card is None:
        print("served without a guard, which has no card yet; python run.py calibrate makes it", file=sys.stderr)
        return None
    from serving.guarding import Guarding

    serving = settings.serving
    return Guarding(
        mode=settings.guard,
        card=card,
        on_failure=serving.guard_on_failure,
        held_back=serving.held_back,
        timeout_s=serving.guard_timeout_s,
    )


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
    key = _keys_in(project.workspace.keys).make(
        name, requests_per_minute, tokens_per_minute=tokens_per_minute, expires_in=expires_in
    )
    print(f"the key of {name}; it is shown this once:", file=sys.stderr)
    console.print(key)


@keys.command("list")
@on_project
def list_keys(project: Project, *, as_json: AsJson = False) -> None:
    """List the API keys: their names, beginnings, limits and whether they are valid."""
    from serving.keys import KeyShown  # with SQLAlchemy, which --help need not wait for

    found, now = _keys_in(project.workspace.keys).all(), datetime.now(UTC)
    with reporting(as_json=as_json) as document:
        document([KeyShown(state=key.state(now), **key.model_dump(exclude={"sha256"})) for key in found])
    if as_json:
        return
    if not found:
        raise UserError("there is no API key yet; make one: python run.py keys make NAME")
    console.print(keys_table(found, now))


@keys.command("revoke")
@on_project
def revoke_key(name: Annotated[str, typer.Argument(help="The name that it was made with.")], project: Project) -> None:
    """Make an API key invalid for good; a running service refuses it within two seconds."""
    _keys_in(project.workspace.keys).revoke(name)
    console.print(f"the key {name} is revoked")


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


def _any_valid_key(at: Path | str) -> bool:
    now = datetime.now(UTC)
    return any(key.state(now) == "active" for key in _keys_in(at).all())


def _keys_in(at: Path | str) -> KeyStore:
    from serving.keys import KeyStore  # with SQLAlchemy, which --help need not wait for

    return KeyStore(at)
