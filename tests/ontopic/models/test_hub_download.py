"""Models of the Hugging Face hub, from a server on the loopback interface that speaks the hub's protocol."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback import answering

from ontopic.errors import UserError
from ontopic.models.hub_download import TOKENIZER_FILES, downloaded

COMMIT = "0" * 39 + "1"


@dataclass
class Hub:
    """A hub with one model.

    Attributes:
        files: of the model, by name.
        gated: whether only the account of the token ``good`` has accepted its licence.
        private: whether it is shown to that account alone.
    """

    name: str
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


@contextlib.contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """A running ``Hub``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            path = self.path.partition("?")[0]
            file = path.removeprefix(f"/{hub.name}/resolve/{COMMIT}/")
            if token not in ("", "good", "other"):
                self.send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
            elif f"/{hub.name}" not in path or (hub.private and token != "good"):
                self.send(404 if token else 401, b"", {"X-Error-Code": "RepoNotFound"})
            elif path == f"/api/models/{hub.name}/revision/main" or path == f"/api/models/{hub.name}":
                siblings = [{"rfilename": name} for name in hub.files]
                self.send(200, json.dumps({"id": hub.name, "sha": COMMIT, "siblings": siblings}).encode(), {})
            elif path.startswith(f"/api/models/{hub.name}/tree/"):
                tree = [{"type": "file", "path": n, "size": len(c), "oid": "1" * 40} for n, c in hub.files.items()]
                self.send(200, json.dumps(tree).encode(), {})
            elif hub.gated and token != "good":
                self.send(403 if token else 401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            elif file in hub.files:
                self.send(200, hub.files[file], {"ETag": f'"{file}"', "X-Repo-Commit": COMMIT})
            else:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as hub.url:
        yield hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that the client is sent to, with an empty cache and no token."""
    from huggingface_hub import constants

    with running_hub(Hub("google/gemma-1.1-2b-it", files={"config.json": b"{}", "model.safetensors": b"w"})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "ALL_PROXY", "SSL_CERT_FILE"):
            monkeypatch.delenv(name, raising=False)
        yield hub


def refused(hub: Hub) -> str:
    with pytest.raises(UserError) as caught:
        downloaded(hub.name, TOKENIZER_FILES)
    (sentence,) = caught.value.mistakes
    return sentence


def test_a_model_that_may_be_had_is_fetched_without_what_is_not_asked_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", "good")
    folder = downloaded(hub.name, TOKENIZER_FILES)
    assert {path.name for path in folder.iterdir()} == {"config.json"}


def test_what_keeps_a_model_from_this_machine_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated = True
    assert refused(hub) == (
        f"google/gemma-1.1-2b-it asks for a licence; accept it at {hub.url}/google/gemma-1.1-2b-it, "
        "and put that account's HF_TOKEN into .env"
    )
    hub.gated, hub.private = False, True
    assert "the hub shows no model google/gemma-1.1-2b-it to who is not logged in" in refused(hub)
    monkeypatch.setenv("HF_TOKEN", "other")
    assert "could not be had from the Hugging Face hub (RepositoryNotFoundError)" in refused(hub)
    hub.gated, hub.private = True, False
    assert refused(hub).startswith("the account of HF_TOKEN has no access to google/gemma-1.1-2b-it; accept")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert refused(hub).startswith("the hub does not take the token in HF_TOKEN")
