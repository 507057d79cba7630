"""A server of another tool's pages: one quiet process group on this machine's loopback, ended whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel, ConfigDict

from ontopic.commands.options import ROOT
from ontopic.errors import UserError

HOST = "127.0.0.1"
_READY_S = 180.0
_GRACE_S = 5.0
_LOG_LINES = 15
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# The group ends when its standard input does: the kernel closes it, however the launcher ended.
_WITH_LAUNCHER = """
import os, signal, sys, threading
def end_with_launcher():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=end_with_launcher, daemon=True).start()
import runpy
"""


class PageServer(BaseModel):
    """What is started.

    Attributes:
        name: of the tool, for the reader.
        module: that is run as ``python -m`` runs it.
        first: a module that is imported before it; none where empty.
        ready_path: answers 200 once the server is ready.
        log: receives all that the server says.
        environment: more of it than this process has.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    module: str
    arguments: Sequence[str]
    port: int
    ready_path: str
    log: Path
    first: str = ""
    environment: Mapping[str, str] = {}


def check_port(port: int) -> None:
    """See that a port of this machine's loopback can be listened on.

    Raises:
        UserError: it can't.
    """
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.settimeout(1)
        probe.connect((HOST, port))  # macOS lets two listen, one of them on all addresses
        raise UserError(f"port {port} is taken by another program; end it, or give another port with --port")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"port {port} can't be listened on ({error.strerror}); give another with --port") from None


@contextlib.contextmanager
def running(server: PageServer) -> Iterator[subprocess.Popen[bytes]]:
    """The server, ready, for as long as the block lasts. Signals that end this process leave the block.

    Raises:
        UserError: it ended while it started, or was not ready in time.
    """
    before = {each: signal.getsignal(each) for each in _ENDING}
    process = None
    try:
        for each in _ENDING:
            if before[each] is not signal.SIG_IGN:  # as under nohup
                signal.signal(each, _leave)
        process = _start(server)
        _wait_until_ready(server, process)
        yield process
    finally:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)  # ending takes seconds at most, and is not cut short
        if process is not None:
            _end(process)
        for each, handler in before.items():
            signal.signal(each, handler)


def wait_for_end(server: PageServer, process: subprocess.Popen[bytes]) -> NoReturn:
    """Wait as long as the server runs.

    Raises:
        UserError: it ended by itself.
    """
    process.wait()
    raise _ended(server, "ended")


def _start(server: PageServer) -> subprocess.Popen[bytes]:
    quiet = {"PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1"}
    # Files of the folder that the command is given in are no modules.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = quiet | {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}
    script = f"{_WITH_LAUNCHER}\n{f'import {server.first}' if server.first else ''}\n"
    script += (
        f"sys.argv[0] = {server.module!r}\nrunpy.run_module({server.module!r}, run_name='__main__', alter_sys=True)"
    )
    with server.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", script, *server.arguments],
            env=os.environ | own | dict(server.environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, which Ctrl-C on the terminal does not reach
        )


def _wait_until_ready(server: PageServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while not _answers(server):
        if process.poll() is not None:
            raise _ended(server, "ended while it started")
        if time.monotonic() > deadline:
            raise _ended(server, f"was not ready after {_READY_S:.0f} seconds")
        time.sleep(0.1)


def _answers(server: PageServer) -> bool:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=2)
    try:
        connection.request("GET", server.ready_path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _ended(server: PageServer, what: str) -> UserError:
    lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
    return UserError("\n".join([f"{server.name}'s server {what}; the end of its log, {server.log}:", *lines]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group: asked first, killed if it does not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _leave(number: int, _: object) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
