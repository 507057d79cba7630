"""The Hugging Face hub's protocol of reading data sets on the loopback interface."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from loopback import answering

COMMIT = "c0ffee" * 6 + "c0ff"
_API = re.compile(r"/api/datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/[^/?]+(?:/(.*))?)?")
_FILE = re.compile(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@contextlib.contextmanager
def running_dataset_hub(sets: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """A hub that holds these data sets, files by name; yields what ``HF_ENDPOINT`` takes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            if found := _FILE.fullmatch(path):
                content = sets.get(found[1], {}).get(found[2])
                if content is None:
                    self.send(404, b"", lacks="EntryNotFound" if found[1] in sets else "RepoNotFound")
                else:
                    self.send(200, content, etag=_sha1(content))
                return
            found = _API.fullmatch(path)
            if found is None or found[1] not in sets:
                self.send(404, b"{}", lacks="RepoNotFound" if found else "")
                return
            self.send(200, json.dumps(_told(found, sets[found[1]])).encode())

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            found = _API.fullmatch(unquote(self.path))
            files = sets.get(found[1], {}) if found else {}
            told = [each for each in _files(files) if each["path"] in asked.get("paths", [])]
            self.send(200 if files else 404, json.dumps(told).encode())

        def send(self, status: int, content: bytes, *, etag: str = "", lacks: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            if etag:
                self.send_header("ETag", f'"{etag}"')
            if lacks:
                self.send_header("X-Error-Code", lacks)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        yield url


def _told(asked: re.Match[str], files: Mapping[str, bytes]) -> Any:
    if asked[2] == "tree":
        return _entries(files, f"{asked[3]}/" if asked[3] else "")
    told = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
    names = [{"rfilename": name} for name in files]
    return told | {"id": asked[1], "sha": COMMIT, "siblings": names, "lastModified": "2026-01-01T00:00:00.000Z"}


def _entries(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    """What lies directly in a folder."""
    inside = [name.removeprefix(folder) for name in files if name.startswith(folder)]
    folders = dict.fromkeys(folder + name.partition("/")[0] for name in inside if "/" in name)
    own = {folder + name: files[folder + name] for name in inside if "/" not in name}
    return [*({"type": "directory", "path": each, "size": 0, "oid": COMMIT} for each in folders), *_files(own)]


def _files(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": _sha1(content)} for name, content in files.items()
    ]


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
