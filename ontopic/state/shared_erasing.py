"""Erasures that are not through, where machines share the state: the next machine that has its turn goes on with them.

What one is of lies in the shared database meanwhile, as in the file of its machine, and leaves it at the end.
"""

from __future__ import annotations

from ontopic.state.erasing import Erasing
from ontopic.state.files import DiskFiles
from ontopic.state.workspace import Workspace


def fetch(workspace: Workspace) -> None:
    """Have those that another machine began at hand."""
    if workspace.state_url is None:
        return
    for path in workspace.files.within(workspace.erasures):
        if not path.exists():
            DiskFiles().make(path, workspace.files.read(path))


def share(workspace: Workspace, erasing: Erasing) -> None:
    """Let other machines have one as it is by now."""
    if workspace.state_url is not None:
        workspace.files.write(erasing.path, erasing.path.read_bytes())


def hand_over(workspace: Workspace, erasing: Erasing) -> None:
    """Leave one to who works now, and goes through its own places when it has written what it was working on."""
    share(workspace, erasing)
    if workspace.state_url is not None:
        erasing.end()


def end(workspace: Workspace, erasing: Erasing) -> None:
    """Remove one that is through, everywhere but on machines that have their own turn to come."""
    erasing.end()
    if workspace.state_url is not None:
        workspace.files.delete(erasing.path)
