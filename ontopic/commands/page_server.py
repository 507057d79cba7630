"""Servers of other tools' pages: each one quiet process group on this machine's loopback, ended whole."""

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
_MOST_SAID = 300
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


def free_ports(n: int) -> list[int]:
    """So many ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(n)]  # held together, so that no two are the same
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


class Running:
    """A server that was started, and may not be ready yet."""

    def __init__(self, server: PageServer) -> None:
        self.server = server
        self._process = _start(server)
        self._began = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it answers.

        Raises:
            UserError: it has ended, or was not ready in time.
        """
        if self._process.poll() is not None:
            raise self._ended("ended while it started")
        if time.monotonic() - self._began > _READY_S:
            raise self._ended(f"was not ready after {_READY_S:.0f} seconds")
        return _answers(self.server)

    def check(self) -> None:
        """See that it still runs.

        Raises:
            UserError: it has ended by itself.
        """
        if self._process.poll() is not None:
            raise self._ended("ended")

    def ask_to_end(self) -> None:
        """Ask the group to end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until then, by the monotonic clock, and kill what is left of the group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _ended(self, what: str) -> UserError:
        lines = self.server.log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return UserError(
            f"{self.server.name}'s server {what}{f' ({said[:_MOST_SAID]})' if said else ''}; see {self.server.log}"
        )


@contextlib.contextmanager
def running(servers: Sequence[PageServer]) -> Iterator[list[Running]]:
    """The servers, started all at once, for as long as the block lasts. Signals that end this process leave the block.

    All are ended together, so that it takes as long as the slowest.
    """
    before = {each: signal.getsignal(each) for each in _ENDING}
    started: list[Running] = []
    try:
        for each in _ENDING:
            if before[each] is not signal.SIG_IGN:  # as under nohup
                signal.signal(each, _leave)
        for given in servers:
            started.append(Running(given))
        yield started
    finally:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)  # ending takes seconds at most, and is not cut short
        for server in started:
            server.ask_to_end()
        deadline = time.monotonic() + _GRACE_S
        for server in started:
            server.end(deadline)
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _answers(server: PageServer) -> bool:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=2)
    try:
        connection.request("GET", server.ready_path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _leave(number: int, _: object) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
