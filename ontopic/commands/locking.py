"""One run or watch at a time: a lock on the state folder, and on the registered model where machines share state."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from ontopic.commands.options import check_has_weights
from ontopic.errors import UserError
from ontopic.state.moved import settle
from ontopic.state.workspace import Workspace

_LOOKS_S = 1.0  # how often who stands by looks whether it may go on


@contextmanager
def locked(
    workspace: Workspace, registered_model: str, *, stand_by: Callable[[str], object] | None = None
) -> Iterator[None]:
    """One run or watch at a time a state folder, and a registered model where machines share their state.

    The death of its process frees the lock.

    Args:
        stand_by: where machines share their state: called with a line for the reader while another one works on the
            model, for whose end this one then waits. ``None`` to raise.

    Raises:
        UserError: another one works there, or it is the demo's folder.
    """
    check_has_weights(workspace)
    workspace.root.mkdir(parents=True, exist_ok=True)
    if not os.access(workspace.root, os.W_OK):
        raise UserError(f"{workspace.root} may not be written; give another folder with --state")
    settle(workspace)
    told = ""
    with ExitStack() as held:
        while (why := _hold(workspace, registered_model, held=held)) is not None:
            if stand_by is None or workspace.state_url is None:
                raise why
            if str(why) != told:
                told = str(why)
                stand_by(f"Standing by: {told.removesuffix('; wait for it')}")
            time.sleep(_LOOKS_S)
        try:
            yield
        except KeyboardInterrupt as stopped:
            stopped.add_note("the next run goes on from here")
            raise


def _hold(workspace: Workspace, registered_model: str, *, held: ExitStack) -> UserError | None:
    """Take both locks, or neither and say why."""
    with ExitStack() as own:
        if (url := workspace.state_url) is not None:
            from ontopic.state.lead import lead_in_words, take_lead

            lead = take_lead(url, registered_model)
            if lead is None:
                who = lead_in_words(url, registered_model)
                return UserError(f"another run or watch works on {registered_model} ({who}); wait for it")
            own.callback(lead.release)
        try:
            own.enter_context(FileLock(workspace.lock, timeout=0.5))  # who only looks holds it for a moment
        except Timeout:
            return UserError(
                f"another run or watch uses {workspace.root}; wait for it, or give another folder with --state"
            )
        held.push(own.pop_all())
    return None


@contextmanager
def nobody_works(workspace: Workspace) -> Iterator[bool]:
    """Whether no run or watch works in this folder, or on what machines share; if so, none begins within the block."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(workspace.lock, timeout=0))
        except Timeout:
            yield False
            return
        if workspace.state_url is None:
            yield True
            return
        from ontopic.state.lead import nobody_leads

        yield held.enter_context(nobody_leads(workspace.state_url))


def work_on(
    workspace: Workspace, registered_model: str, *, work: Callable[[], object], tell: Callable[[str], object]
) -> None:
    """Work for as long as nobody else does: see ``locked``. Where machines share their state, this process stands by
    meanwhile; and where it loses the database, or another one takes over, it stands by again.

    Args:
        work: called each time that this one's turn has come; when it returns, that is the end.
        tell: called with a line for the reader.
    """
    if workspace.state_url is None:
        with locked(workspace, registered_model):
            work()
        return
    from sqlalchemy.exc import InterfaceError, OperationalError

    from ontopic.state.database import OutOfReachError
    from ontopic.state.lead import LeadLostError

    said: list[str] = []

    def say(line: str) -> None:
        if line not in said[-1:]:
            tell(line)
        said.append(line)

    while True:
        try:
            with locked(workspace, registered_model, stand_by=say):
                say(f"This process works on {registered_model} now")
                work()
            return
        except (LeadLostError, OutOfReachError, OperationalError, InterfaceError) as lost:
            of_ours = isinstance(lost, UserError) or type(lost.orig).__module__.startswith("psycopg")
            if not (of_ours and said):  # that it never was there is the user's to mend
                raise
            say(f"Standing by: {str(lost).splitlines()[0]}")
            time.sleep(_LOOKS_S)
