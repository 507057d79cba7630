"""An OpenAI-compatible server on the loopback interface, and where the repository is."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Reply:
    """What the loopback server sends: a completion that says ``text``, or ``body`` as it is.

    Attributes:
        parts: more of the completion, such as ``usage``; ``choice``: more of its one choice, such as ``logprobs``.
        delay_s: how long it takes.
        cut: whether the connection breaks in the middle of the body.
        pause_s: in a stream, how long each chunk after the first takes.
    """

    text: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    parts: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    pause_s: float = 0.0


@dataclass
class ChatServer:
    """A server of the chat-completions protocol on the loopback interface.

    Attributes:
        url: what ``OPENAI_BASE_URL`` takes.
        requests: the bodies of the requests so far.
        keys, authorizations: their ``Idempotency-Key`` and ``Authorization`` headers.
        reply: called with a request's body for the answer to it.
        hung_up: how many streams their client left.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], Reply] = lambda request: Reply()
    hung_up: int = 0

    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [request["messages"][-1]["content"] for request in self.requests]


@contextlib.contextmanager
def running_server() -> Iterator[ChatServer]:
    """A running ``ChatServer``."""
    chat, lock = ChatServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: no delayed acknowledgement

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                chat.requests.append(request)
                chat.keys.append(self.headers["Idempotency-Key"])
                chat.authorizations.append(self.headers["Authorization"])
                reply = chat.reply(request)
            time.sleep(reply.delay_s)
            if self.path != "/v1/chat/completions":
                reply = Reply(status=404)
            if request.get("stream") and reply.status == 200 and reply.body is None:
                self.stream(reply, request)
                return
            body = reply.body if reply.body is not None else completion(reply, request["model"])
            self.send_response(reply.status)
            for name, value in ({"Content-Type": reply.content_type} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = self.close_connection or reply.cut

        def stream(self, reply: Reply, request: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            sent = list(events(reply, request))
            for i, event in enumerate(sent[: len(sent) // 2] if reply.cut else sent):
                time.sleep(reply.pause_s if i > 1 else 0)
                try:
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                    self.wfile.flush()
                except ConnectionError:
                    with lock:
                        chat.hung_up += 1
                    self.close_connection = True
                    return
            if not reply.cut:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = self.close_connection or reply.cut

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        chat.url = f"{url}/v1"
        yield chat


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on the loopback interface whose requests ``handler`` answers."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # as many clients connect at once as a judge asks

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def events(reply: Reply, request: dict[str, Any]) -> Iterator[bytes]:
    """The server-sent events of a streamed completion: a chunk a line, its end, what it used, ``[DONE]``.

    A ``usage`` of ``None`` among the reply's parts is a server that does not count.
    """
    envelope = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": request["model"]}
    envelope |= {name: part for name, part in reply.parts.items() if name != "usage"}
    lines = [{"content": line} for line in (reply.text or "").splitlines(keepends=True)] or [{}]
    more = {name: value for name, value in reply.choice.items() if name != "finish_reason"}
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    chunks += [{"choices": [{"index": 0, "delta": line, "finish_reason": None} | more]} for line in lines]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": reply.choice.get("finish_reason", "stop")}]}]
    if (request.get("stream_options") or {}).get("include_usage") and reply.parts.get("usage"):
        chunks += [{"choices": [], "usage": reply.parts["usage"]}]
    for chunk in chunks:
        yield b"data: " + json.dumps(envelope | chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def completion(reply: Reply, model: str) -> bytes:
    """The body of a chat completion, or of an error."""
    if reply.status != 200:
        return json.dumps({"error": {"message": reply.text or "refused", "type": "test"}}).encode()
    message = {"role": "assistant", "content": reply.text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message} | reply.choice]
    content = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": choices}
    return json.dumps(content | reply.parts).encode()
