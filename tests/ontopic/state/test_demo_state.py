"""The demo's state folder: what is packed, and that it is unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import run
from ontopic.commands.options import check_has_weights
from ontopic.errors import UserError
from ontopic.state.demo_state import ARCHIVE, pack, unpack
from ontopic.state.workspace import Workspace

LEFT_OUT = (
    "keys.db", "user.key", "loop/user.key", "training/a/adapter/adapter_model.safetensors", "models/m/config.json",
    "mlartifacts/1/artifacts/model/model.safetensors", "mlartifacts/1/artifacts/model/tokenizer.json",
    "judges/local-1/judge.joblib", "serving.log", "run.lock", "spool/1.jsonl",
)  # fmt: skip
KEPT = ("mlartifacts/1/artifacts/model/MLmodel", "judges/local-1.card.json", "reports/a.html", "mlartifacts/1/a.html")


@pytest.fixture
def packed(state_before: Path, tmp_path: Path) -> Path:
    """A packed state folder whose path stands in it, with things that are nobody's business."""
    (state_before / "place").write_text(str(state_before))
    for name in (*LEFT_OUT, *KEPT):
        (state_before / name).parent.mkdir(parents=True, exist_ok=True)
        (state_before / name).write_text("x" * (200_000 if "tokenizer" in name else 10))
    (state_before / "zenml" / "a.json").parent.mkdir(exist_ok=True)
    (state_before / "zenml" / "a.json").write_text(f'["{state_before}/reports/a.html", "{tmp_path}/code/configs"]')
    archive = tmp_path / "packed" / "state.tar.xz"
    (state_before / "reports" / "linked.html").write_text(f'<a href="{state_before}/evidence/1/gate.html">')
    (state_before / "evidence" / "1").mkdir(parents=True, exist_ok=True)
    (state_before / "evidence" / "1" / "gate.html").write_text(f"of {state_before}")  # as the record has its hash
    assert pack(state_before, archive, code=tmp_path / "code") == ["evidence/1/gate.html"]
    return archive


def sealed(archive: Path) -> Path:
    """The archive with the digest that it has now."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    return archive


def test_no_weight_no_key_and_no_path_is_packed(packed: Path, tmp_path: Path, state_before: Path) -> None:
    folder = tmp_path / "demo"
    assert unpack(folder, packed)
    assert not [name for name in LEFT_OUT if (folder / name).exists()]
    assert all((folder / name).is_file() for name in KEPT)
    assert (folder / "zenml" / "a.json").read_text() == f'["{folder}/reports/a.html", "/ontopic-demo/ontopic/configs"]'
    here = str(state_before).encode()
    naming = [path.name for path in folder.rglob("*") if path.is_file() and here in path.read_bytes()]
    assert naming == ["gate.html"]
    with tarfile.open(packed) as tar:
        assert {(each.uname, each.mtime, each.mode) for each in tar.getmembers()} == {("", 0, 0o644)}
        assert sum(each.islnk() for each in tar.getmembers()) >= 1  # pages are in MLflow too, and packed once


def test_the_same_folder_gives_the_same_file(packed: Path, state_before: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.tar.xz"
    pack(state_before, again, code=tmp_path / "code")
    assert (
        again.with_name("again.tar.xz.sha256").read_text().split()[0]
        == sealed(packed).with_name("state.tar.xz.sha256").read_text().split()[0]
    )


def test_what_is_unpacked_is_shown_and_trains_nothing(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    unpack(folder, packed)
    shown = CliRunner().invoke(run.app, ["status", "--state", str(folder)])
    assert shown.exit_code == 0 and "version 1, rolled back to" in shown.stdout
    assert "was at" not in shown.stderr  # it goes by its place already
    with pytest.raises(UserError, match="whose weights are left out"):
        check_has_weights(Workspace(root=folder))


def test_it_is_unpacked_once_and_over_nothing(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    unpack(folder, packed)
    (folder / "reports" / "mine.html").write_text("kept")
    assert not unpack(folder, packed)
    assert (folder / "reports" / "mine.html").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for taken in (other, other / "notes.txt"):
        with pytest.raises(UserError, match="is not empty and not this release's demo"):
            unpack(taken, packed)
    (folder / "demo").write_text("of an earlier release")
    with pytest.raises(UserError, match="is not empty and not this release's demo"):
        unpack(folder, packed)


def test_a_damaged_file_is_not_unpacked(packed: Path, tmp_path: Path) -> None:
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UserError, match="is not as it was released"):
        unpack(tmp_path / "demo", packed)
    packed.unlink()
    with pytest.raises(UserError, match="is missing, so there is no demo"):
        unpack(tmp_path / "demo", packed)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "link/outside"])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    archive = tmp_path / "state.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.addfile(tarfile.TarInfo("first"), io.BytesIO())
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(tarfile.FilterError):
        unpack(tmp_path / "demo", sealed(archive))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.tar.xz", "state.tar.xz.sha256"]


def test_no_state_folder_is_no_demo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run of the loop"):
        pack(tmp_path, tmp_path / "state.tar.xz")


def test_the_released_demo_tells_of_a_promotion(tmp_path: Path) -> None:
    assert ARCHIVE.stat().st_size < 3_200_000
    unpack(tmp_path / "demo")
    for arguments, said in (
        (["status"], "version 2, promoted"),
        (["record", "verify"], "all are as they were written"),
    ):
        shown = CliRunner().invoke(run.app, [*arguments, "--state", str(tmp_path / "demo")])
        assert shown.exit_code == 0 and said in shown.stdout
    for path in (tmp_path / "demo").rglob("*.db"):
        assert not [word for word in (b"/home/", b"/root/", b"/Users/") if word in path.read_bytes()]
