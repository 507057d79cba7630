"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client, which reads it once

import pytest

from ontopic.policy import Policy, load_policy
from ontopic.quality import Quality

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def no_mlflow_of_others() -> Iterator[None]:
    """MLflow keeps its tracking URI in the process and in the environment: neither the shell's nor a file's reaches the
    next file."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


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
    """What the loopback server sends: a completion that says ``text``, or ``body`` as it is.

    Attributes:
        parts: more of the completion, such as ``usage``; ``choice``: more of its one choice, such as ``logprobs``.
        delay_s: how long it takes.
        cut: whether the connection breaks in the middle of the body.
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


@dataclass
class ChatServer:
    """A server of the chat-completions protocol on the loopback interface.

    Attributes:
        url: what ``OPENAI_BASE_URL`` takes.
        requests: the bodies of the requests so far.
        keys: their ``Idempotency-Key`` headers.
        reply: called with a request's body for the answer to it.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    reply: Callable[[dict[str, Any]], Reply] = lambda request: Reply()

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
                chat.keys.append(self.headers["Idempotency-Key"])
                reply = chat.reply(request)
            time.sleep(reply.delay_s)
            if self.path != "/v1/chat/completions":
                reply = Reply(status=404)
            body = reply.body if reply.body is not None else completion(reply, request["model"])
            self.send_response(reply.status)
            for name, value in ({"Content-Type": reply.content_type} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if reply.cut else body)
            self.close_connection = self.close_connection or reply.cut

        def log_message(self, *_: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield chat
        server.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # as many clients connect at once as a judge asks

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def completion(reply: Reply, model: str) -> bytes:
    """The body of a chat completion, or of an error."""
    if reply.status != 200:
        return json.dumps({"error": {"message": reply.text or "refused", "type": "test"}}).encode()
    message = {"role": "assistant", "content": reply.text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message} | reply.choice]
    content = {"id": "1", "object": "chat.completion", "created": 0, "model": model, "choices": choices}
    return json.dumps(content | reply.parts).encode()


def quality_of(similarity: float = 0.6, questions: int = 40, perplexity: float = 46.0) -> Quality:
    """A model's quality, its answers spread about ``similarity``."""
    spread = [similarity + 0.1 * (i % 2) - 0.05 for i in range(questions)]
    names, no = [f"Question {i}?" for i in range(questions)], [False] * questions
    return Quality(names, spread, [3.0] * questions, [20] * questions, no, no, perplexity)


@pytest.fixture(scope="session")
def banking() -> Policy:
    """The shipped banking policy."""
    return load_policy(ROOT / "configs" / "policies" / "banking.yaml")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL, without a database's name, of a PostgreSQL server of this session's own on the loopback interface."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        pytest.skip("PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb)")
    binaries, folder = versions[-1].parent, Path(tempfile.mkdtemp(prefix="ontopic-postgres-"))
    user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [*user, str(binaries / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*user, *initdb, "--locale=C.UTF-8"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
        start = [*control, "-l", str(folder / "log"), "-o", options, "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        yield f"postgresql://postgres@127.0.0.1:{port}"
    finally:
        with contextlib.suppress(OSError):
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"traffic_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"{postgres}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_at(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where an empty traffic store can be made: a file and a URL in turn."""
    if request.param == "sqlite":
        return tmp_path / "a folder" / "traffic #1?.db"
    return str(request.getfixturevalue("postgres_database"))
