"""Servers on the loopback interface that answer as their entries in servers.yaml say, byte for byte."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from typing import Any, Self

_BODY = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}


class OddServers:
    """All of them on one port, each under its name: ``/NAME/v1/chat/completions``.

    Args:
        entries: of servers.yaml.

    Attributes:
        asked: how many requests each was sent.
    """

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = {entry["name"]: entry for entry in entries}
        self.asked: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def url(self, name: str) -> str:
        """What ``base_url`` takes."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/{name}/v1"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    part = connection.recv(65536)
                    if not part:
                        return
                    request += part
                head, _, body = request.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-le")
                    ),
                    0,
                )
                while len(body) < length:
                    body += connection.recv(65536)
                name, _, rest = head.split(b" ")[1].decode().lstrip("/").partition("/")
                self.asked[f"{name}/sent" if rest.startswith("sent") else name] += 1
                connection.sendall(response(self._entries.get(name, {"status": 404, "raw": ""})))
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                return


def response(entry: dict[str, Any]) -> bytes:
    """What an entry answers, head and body."""
    more = str(entry.get("then", "")) * entry.get("times", 0)
    if "packets" in entry:
        return (entry["packets"] + more).encode("latin-1")
    if "raw" in entry:
        body = entry["raw"]
    elif "body" in entry:
        body = json.dumps(entry["body"])
    else:
        message = entry.get("message", {"role": "assistant", "content": str(entry.get("content", "")) + more})
        choice = entry.get("choice", {"index": 0, "finish_reason": entry.get("finish", "stop"), "message": message})
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = json.dumps(_BODY | {"choices": [choice], "usage": usage})
    headers = {"content-type": entry.get("type", "application/json"), "connection": "close"} | entry.get("headers", {})
    sent = body.encode()
    lines = [f"HTTP/1.1 {entry.get('status', 200)} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(sent)}", "", ""]).encode() + sent
