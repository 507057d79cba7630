"""Who hears of alerts: an HTTP server on the loopback interface that notes every notification."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loopback import answering

_NUMBER = re.compile(r"\(alert (\d+)\)")


class Receiver:
    """What it was sent.

    Attributes:
        url: for a rule's ``notify``.
        bodies: as JSON, in the order in which they came.
    """

    def __init__(self) -> None:
        self.url, self.bodies, self._lock = "", list[dict[str, str]](), threading.Lock()

    def add(self, body: bytes) -> None:
        with self._lock:
            self.bodies.append(json.loads(body))

    def alerts(self) -> Counter[int]:
        """How often each alert's notification came, by the alert's number."""
        return Counter(int(found[1]) for body in self.bodies if (found := _NUMBER.search(body["message"])))


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """A running ``Receiver``."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        receiver.url = url.replace("http://", "json://") + "/alerts"
        yield receiver
