"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client, which reads it once

import pytest
from openai import AsyncOpenAI

from ontopic.policy import Policy, load_policy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def session_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that the tests of one session share."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def model_folder(session_state: Path) -> Path:
    """The embedded model, converted once a session."""
    from ontopic.models import EMBEDDED, resolve

    return resolve(EMBEDDED, session_state)


@dataclass
class Reply:
    """What the loopback server sends: a completion that says ``text``, or ``body`` as it is."""

    text: str | None = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"


@dataclass
class ChatServer:
    """A server of the chat-completions protocol on the loopback interface.

    Attributes:
        url: what ``OPENAI_BASE_URL`` takes.
        requests: the bodies of the requests so far.
        reply: called with a request's body for the answer to it.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], Reply] = lambda request: Reply()

    def client(self, max_retries: int = 1) -> AsyncOpenAI:
        """A client of this server. A judge or teacher closes it after one call, so take a new one for the next."""
        return AsyncOpenAI(base_url=self.url, api_key="none", max_retries=max_retries, timeout=10)

    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [request["messages"][-1]["content"] for request in self.requests]


@pytest.fixture
def chat_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running ``ChatServer``; set its ``reply``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chat, lock = ChatServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: no delayed acknowledgement

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                chat.requests.append(request)
                reply = chat.reply(request)
            if self.path != "/v1/chat/completions":
                reply = Reply(status=404)
            body = reply.body if reply.body is not None else completion(reply, request["model"])
            self.send_response(reply.status)
            for name, value in ({"Content-Type": reply.content_type} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield chat
        server.shutdown()
        thread.join()


def completion(reply: Reply, model: str) -> bytes:
    """The body of a chat completion, or of an error."""
    if reply.status != 200:
        return json.dumps({"error": {"message": reply.text or "refused", "type": "test"}}).encode()
    message = {"role": "assistant", "content": reply.text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    content = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": choices}
    return json.dumps(content).encode()


@pytest.fixture(scope="session")
def banking() -> Policy:
    """The shipped banking policy."""
    return load_policy(ROOT / "configs" / "policies" / "banking.yaml")
