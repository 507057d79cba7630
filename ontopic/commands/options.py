"""What commands share: the options ``--config``, ``--state`` and ``--quiet``, what they open, and who gives them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.errors import UserError
from ontopic.progress import be_quiet, is_quiet
from ontopic.state.moved import settle
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.visible import visible

if TYPE_CHECKING:
    from ontopic.judges.judge import Judge
    from ontopic.registry.versions import RegisteredModel

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "configs" / "local.yaml"
STATE = ROOT / ".ontopic"


@dataclass(frozen=True)
class _Visible:
    """Something that rich prints, its texts as ``visible`` shows them."""

    given: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for part in console.render(self.given, options):
            shown = "\n".join(map(visible, part.text.split("\n")))
            yield part if part.control else Segment(shown, part.style)


class _AllVisible(RenderHook):
    """No stranger's text reaches the terminal as it came, whoever prints it."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(each) for each in renderables]


console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
console.push_render_hook(_AllVisible())

SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out malformed rows instead of stopping.")]
By = Annotated[str | None, typer.Option(help="Who decides; the user of this machine by default.")]
Why = Annotated[str, typer.Option(help="The reason, for the auditor.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say results and errors, and no progress.")]
_OPTIONS = (
    ("config", Annotated[Path, typer.Option("--config", help="Configuration file.", show_default=False)], LOCAL),
    (
        "state",
        Annotated[Path, typer.Option("--state", help="Folder of all that is kept between runs.", show_default=False)],
        STATE,
    ),
    ("quiet", Quiet, False),
)


@dataclass(frozen=True)
class Project:
    """What ``--config`` and ``--state`` name."""

    settings: Settings
    policy: Policy
    workspace: Workspace


def open_project(config: Path, state: Path, *, begins: bool = False, moves: bool = False) -> Project:
    """Read the configuration and its policy, and open the state folder.

    Args:
        begins: whether there need be nothing in the folder yet; what is written into it then makes it.
        moves: whether the folder's state may be its own although a database is named that machines share.

    Raises:
        UserError: a file is missing or malformed, or there is no such state folder.
    """
    settings = load_settings(config)
    policy, workspace = load_policy(settings.policy), open_workspace(state, make=False)
    if workspace.state_url is not None and not moves:
        from ontopic.state.moving import check_moved

        check_moved(workspace)
    if workspace.is_made:
        settle(workspace)
    elif not begins:
        check_begun(workspace, "serve" if settings.serving.upstream else "")
    return Project(settings, policy, workspace)


def check_begun(workspace: Workspace, first: str = "") -> None:
    """Make sure that there is something in a state folder, or that its traffic and registry are elsewhere.

    Args:
        first: the command that begins; empty for the loop.

    Raises:
        UserError: there is nothing.
    """
    if not workspace.is_made and workspace.is_alone:
        raise UserError(
            f"{workspace.root}: OnTopic has kept nothing there yet; check --state, or run "
            f"`{f'python run.py {first}'.strip()}` first"
        )


def on_project(function: Callable[..., None], *, begins: bool = False, moves: bool = False) -> Callable[..., None]:
    """Give a command the options ``--config`` and ``--state``, what they open as its argument ``project``, and
    ``--quiet``.

    A group's own command leaves the options to the command that follows it.

    Args:
        begins, moves: as ``open_project`` takes them.
    """
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def command(*, config: Path, state: Path, quiet: bool, **options: Any) -> None:
        context = options.get("context")
        if context is not None and _leaves_to_command(context):
            return
        be_quiet(quiet=quiet)
        function(project=open_project(config, state, begins=begins, moves=moves), **options)

    own = [parameter for name, parameter in signature.parameters.items() if name != "project"]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, annotation, default in _OPTIONS
    ]
    command.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    return command


beginning = functools.partial(on_project, begins=True)
"""``on_project`` for a command that may be a user's first."""
unmoved = functools.partial(on_project, begins=True, moves=True)
"""``on_project`` for a command on a folder whose state may be its own, where a database is named."""


def _leaves_to_command(context: typer.Context) -> bool:
    """Whether a command follows, which then takes the options."""
    if not context.invoked_subcommand:
        return False
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source and source.name == "COMMANDLINE":
            said = max(parameter.opts, key=len)
            raise UserError(f"{said} stands before the command; put it behind {context.invoked_subcommand}")
    return True


def check_has_weights(workspace: Workspace) -> None:
    """Let the demo's state folder show what it has.

    Raises:
        UserError: it is one, and weights are needed.
    """
    if workspace.demo.is_file():
        raise UserError(
            f"{workspace.root}: is the demo, whose weights are left out; `python run.py` makes the whole, with all "
            "that the demo shows, in a folder of its own"
        )


def version_of(project: Project, which: str) -> RegisteredModel:
    """The model version that ``which`` names, with its weights on this machine.

    Raises:
        UserError: there is no such version, or the configuration serves another server's model.
    """
    check_has_weights(project.workspace)
    project.settings.check_weights(f"the {which}" if which.isalpha() else f"version {which}")
    from ontopic.registry import versions
    from ontopic.registry.tracking import open_tracking

    name, workspace = project.policy.registered_model, project.workspace
    open_tracking(workspace, name)
    if versions.older(name, workspace=workspace):
        from ontopic.training.registering import bring_along  # which imports torch

        bring_along(name, workspace=workspace)
    return versions.find(name, which, workspace=workspace)


def judge_of(project: Project) -> Judge:
    """The configured judge."""
    from ontopic.judges.opening import open_judge

    return open_judge(project.settings.judge_choice, project.policy, workspace=project.workspace)


def user_name() -> str:
    """Who gives the command.

    Raises:
        UserError: the machine does not say.
    """
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise UserError("this machine does not say who you are; give your name with --by") from None


def who(by: str | None) -> str:
    """Who decides: the name that was given, else the user of this machine.

    Raises:
        UserError: nobody does.
    """
    if by is not None and not by.strip():
        raise UserError("--by is empty; give a name, or leave it out for the user of this machine")
    return printable(by.strip()) if by else user_name()


def account() -> str:
    """The account that a command runs under, which no variable of the environment can change."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def reason(why: str) -> str:
    """A reason without spaces at its ends.

    Raises:
        UserError: nothing is left.
    """
    if not why.strip():
        raise UserError("--why is empty; give the reason, for whoever asks later")
    return printable(why.strip())


def printable(text: str) -> str:
    """What was typed on a command line in another encoding than the terminal's, as text that can be stored."""
    return text.encode(errors="replace").decode()


def say(text: str, *, style: str = "") -> None:
    """Say what is done now, where that is wanted; a result is not said so."""
    if not is_quiet():
        console.print(text, style=style)


def say_skipped(skipped: int) -> None:
    """Say how many malformed rows were left out, where there were some."""
    if skipped:
        console.print(f"{skipped} malformed rows were left out")


def beside(out: Path) -> AbstractContextManager[object]:
    """Where a command says what it did: not among the data where these go to standard output."""
    return contextlib.redirect_stdout(sys.stderr) if _is_standard_output(out) else contextlib.nullcontext()


def check_one_output(out: Path, *, as_json: bool) -> None:
    """Let standard output have one document.

    Raises:
        UserError: data and report would both go there.
    """
    if as_json and _is_standard_output(out):
        raise UserError(f"--json and --out {out} both write to standard output; give --out a file")


def _is_standard_output(out: Path) -> bool:
    try:
        return os.path.samestat(out.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # no such file yet, or an output that is no file
        return False
