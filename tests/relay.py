"""The way to a server on this machine, which can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Relay:
    """Passes on what is sent to a port, until it is cut.

    Attributes:
        port: where it is reached.
        swallows: whether it takes what is sent and passes nothing on.
    """

    def __init__(self, port: int) -> None:
        self._to, self.swallows, self._ends = port, False, list[socket.socket]()
        self.port = 0
        self.mend()

    def mend(self) -> None:
        self.swallows, self._listener = False, socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def cut(self) -> None:
        for each in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ends = listener.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                self._ends += ends
                for come, go in (ends, ends[::-1]):
                    threading.Thread(target=self._pass_on, args=(come, go), daemon=True).start()

    def _pass_on(self, come: socket.socket, go: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sent := come.recv(65536):
                if not self.swallows:
                    go.sendall(sent)
            go.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relayed(url: str) -> Iterator[tuple[Relay, str]]:
    """A way to the server of a URL, and the URL by that way."""
    port = urlsplit(url).port
    assert port is not None
    relay = Relay(port)
    try:
        yield relay, url.replace(f":{port}", f":{relay.port}")
    finally:
        relay.cut()
