"""The Hugging Face hub's protocol of pushes on the loopback interface: repositories, LFS objects, commits."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import _http
from loopback import answering

TOKEN = "hf_of_the_test"


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        url: what ``HF_ENDPOINT`` takes.
        made: what each repository was made with, by its name.
        objects: large files by their sha256.
        files: what each repository shows: after a commit, and not before.
        put: sha256 of the large files that were sent, in order.
        commits: the first line of each commit.
        refuses: called with method and path of a request; a status to answer with, or 0.
    """

    url: str = ""
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    put: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    refuses: Callable[[str, str], int] = lambda method, path: 0


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A running ``Hub``, which knows ``TOKEN`` alone."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            self.answered(_posted)

        def do_PUT(self) -> None:
            self.answered(_put)

        def answered(self, answer: Callable[[Hub, str, bytes], tuple[int, Any]]) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                content = b"".join(self.chunks())
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}" or self.path.startswith("/objects/")
            status = hub.refuses(self.command, self.path) or (0 if known else 401)
            body: Any = {"error": "refused"}
            if not status:
                status, body = answer(hub, self.path, content)
            sent = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as hub.url:
        yield hub


def _put(hub: Hub, path: str, content: bytes) -> tuple[int, Any]:
    sha256 = path.removeprefix("/objects/")
    if hashlib.sha256(content).hexdigest() != sha256:
        return 400, {"error": "not that object"}
    hub.put.append(sha256)
    hub.objects[sha256] = content
    return 200, {}


def _posted(hub: Hub, path: str, content: bytes) -> tuple[int, Any]:
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    if path == "/api/repos/create":
        said = json.loads(content)
        name = f"{said['organization']}/{said['name']}"
        status = 409 if name in hub.made else 200
        hub.made.setdefault(name, said)
        return status, {"url": f"{hub.url}/{name}", "error": "it exists"}
    if path.endswith("/info/lfs/objects/batch"):
        return 200, {"objects": [_upload(hub, each) for each in json.loads(content)["objects"]]}
    owner, name, action, *_ = path.removeprefix("/api/models/").removeprefix("/api/datasets/").split("/")
    if action == "preupload":
        files = json.loads(content)["files"]
        return 200, {
            "files": [{"path": each["path"], "uploadMode": _mode(each), "shouldIgnore": False} for each in files]
        }
    if action == "commit":
        return _committed(hub, f"{owner}/{name}", [json.loads(line) for line in content.splitlines()])
    return 404, {"error": f"no such place: {path}"}


def _mode(file: dict[str, Any]) -> str:
    return "lfs" if file["path"].endswith((".safetensors", ".parquet")) else "regular"


def _upload(hub: Hub, wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted["oid"] in hub.objects:
        return wanted
    return wanted | {"actions": {"upload": {"href": f"{hub.url}/objects/{wanted['oid']}", "header": {}}}}


def _committed(hub: Hub, repository: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
    files = hub.files.get(repository, {}).copy()
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "lfsFile" and value["oid"] not in hub.objects:
            return 400, {"error": f"{value['path']} was never sent"}
        files[value["path"]] = (
            hub.objects[value["oid"]] if line["key"] == "lfsFile" else base64.b64decode(value["content"])
        )
    hub.files[repository] = files
    hub.commits.append(lines[0]["value"]["summary"])
    oid = f"{len(hub.commits):040x}"
    return 200, {"commitUrl": f"{hub.url}/{repository}/commit/{oid}", "commitOid": oid}


@contextlib.contextmanager
def hub_of_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process's client asks, as with HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET set."""
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # it asks again after seconds
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
    set_client_factory(_http.default_client_factory)
