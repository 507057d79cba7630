"""``demo``: the pages of a whole run of the loop, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ontopic.commands.options import LOCAL, STATE, Quiet, say
from ontopic.commands.ui import ui
from ontopic.progress import be_quiet

_FOLDER = STATE / "demo"


def demo(
    *,
    state: Annotated[
        Path, typer.Option("--state", help="The folder that the demo is unpacked into.", show_default=False)
    ] = _FOLDER,
    quiet: Quiet = False,
) -> None:
    """Open the pages of a finished run of the loop, which is unpacked, not trained: a minute's look at what there is.

    `make run` makes the same on this machine. The demo has no weights: what needs them says so.
    """
    from ontopic.state.demo_state import unpack
    from ontopic.state.workspace import open_workspace

    be_quiet(quiet=quiet)
    folder = open_workspace(state, make=False).root
    if unpack(folder):
        say(f"The demo is unpacked into {folder}; look around with `python run.py status --state {folder}`")
    ui(config=LOCAL, state=folder, quiet=quiet)
