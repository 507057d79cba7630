"""Pushes to a server that speaks the hub's protocol: whole or not at all, gone on with, and refused in a sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, hub_of_this_process
from huggingface_hub import constants

from ontopic.errors import UserError
from ontopic.models.hub_push import push

CARD = b"---\nlicense: other\n---\n# A model\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_of_this_process(monkeypatch) as hub:
        yield hub


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path | bytes]:
    shards = {f"model-{i}.safetensors": tmp_path / f"model-{i}.safetensors" for i in (1, 2)}
    for number, path in enumerate(shards.values()):
        path.write_bytes(bytes([number]) * 70_000)
    return {**shards, "README.md": CARD}


def test_all_files_come_with_one_commit_to_a_private_repository(hub: Hub, files: dict[str, Path | bytes]) -> None:
    at = push(files, "bank/ontopic", message="ontopic-banking, version 2")
    assert at.startswith(f"{hub.url}/bank/ontopic/commit/")
    assert hub.made["bank/ontopic"]["visibility"] == "private"
    assert hub.commits == ["ontopic-banking, version 2"]
    assert hub.files["bank/ontopic"] == {
        name: of.read_bytes() if isinstance(of, Path) else of for name, of in files.items()
    }
    push(files, "bank/ontopic", message="again")  # there is such a repository now
    assert len(hub.put) == 2
    push({"pairs.jsonl": b"{}\n"}, "bank/pairs", kind="dataset", message="pairs")
    assert hub.made["bank/pairs"]["type"] == "dataset"
    assert hub.files["bank/pairs"] == {"pairs.jsonl": b"{}\n"}


def test_a_push_that_breaks_off_shows_nothing_and_is_gone_on_with(hub: Hub, files: dict[str, Path | bytes]) -> None:
    second = hashlib.sha256(bytes([1]) * 70_000).hexdigest()
    hub.refuses = lambda method, path: 507 if path.endswith(second) else 0
    with pytest.raises(
        UserError, match=r"bank/ontopic at .*: the push broke off .*run the same command again"
    ) as raised:
        push(files, "bank/ontopic", message="m")
    assert "\n" not in str(raised.value)
    assert "bank/ontopic" not in hub.files
    hub.refuses = lambda method, path: 0
    push(files, "bank/ontopic", message="m")
    assert len(hub.put) == 2 and hub.put[-1] == second
    assert set(hub.files["bank/ontopic"]) == set(files)


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [
        ("/api/repos/create", 401, "the hub does not know the token; check HF_TOKEN"),
        ("/api/repos/create", 403, "the token may not write there"),
        ("/preupload/", 404, "the token may not write there"),
        ("/commit/", 403, "the token may not write there"),
        ("/commit/", 500, "the hub answers 500"),
    ],
)
def test_a_refusal_is_one_sentence(part: str, status: int, said: str, hub: Hub, files: dict[str, Path | bytes]) -> None:
    hub.refuses = lambda method, path: status if part in path else 0
    with pytest.raises(UserError) as raised:
        push(files, "bank/ontopic", message="m")
    assert str(raised.value).startswith(f"bank/ontopic at {hub.url}: {said}")
    assert "\n" not in str(raised.value) and TOKEN not in str(raised.value)
    assert not hub.files


def test_what_can_not_be_pushed_is_said_before_anything_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    hub.refuses = lambda method, path: asked.append(path) or 0  # type: ignore[func-returns-value]
    for name in ("./bank", "a/b/c", "bank/--model", ""):
        with pytest.raises(
            UserError, match="is no name of a repository on the Hugging Face hub; give it as OWNER/NAME"
        ):
            push({}, name, message="m")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(UserError, match="there is no token of the Hugging Face hub; set HF_TOKEN"):
        push({}, "bank/ontopic", message="m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push({}, "bank/ontopic", message="m")
    assert not asked


def test_a_hub_that_is_not_there_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"bank/ontopic at http://127\.0\.0\.1:9: the hub can't be reached"):
        push({"README.md": CARD}, "bank/ontopic", message="m")
