"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ontopic.errors import UserError
from ontopic.state.whole_file import check_writable, folder_sha256, whole_file, whole_folder

ROOT = Path(__file__).parents[3]


def test_a_file_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".jsonl")  # 246 bytes: no name may be longer than 255
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert part.name.startswith(".")
        assert part.parent == tmp_path
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_last_one_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_who_write_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the last that ended
    assert list(tmp_path.iterdir()) == [path]


def test_a_kill_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from ontopic.state.whole_file import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as part: part.write_text('half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    really, path = os.fsync, tmp_path / "out.txt"

    def fsync(descriptor: int) -> None:
        synced.append(path.exists())
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with whole_file(path) as part:
        part.write_text("new")
    assert synced == [False, True]  # the file, then the folder that names it


def test_what_nobody_wrote_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "out.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_last_one_or_leaves_it(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "model"
    with whole_folder(folder) as part:
        (part / "old").write_text("1")
    with pytest.raises(ValueError, match="no more"), whole_folder(folder) as part:
        (part / "new").write_text("half")
        raise ValueError("no more")
    assert [path.name for path in folder.iterdir()] == ["old"]
    with whole_folder(folder) as part:
        (part / "new").write_text("2")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_path_that_cannot_be_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "out.txt")
    for wrong in (tmp_path, tmp_path / "missing" / "out.txt"):
        with pytest.raises(UserError, match="cannot be written; give a file in an existing folder"):
            check_writable(wrong)


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.txt").write_text("a")
    said = hashlib.sha256()
    for name, content in (("b.txt", b"b"), ("sub/a.txt", b"a")):
        said.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    assert folder_sha256(folder) == said.hexdigest()
    (folder / "b.txt").rename(folder / "c.txt")
    assert folder_sha256(folder) != said.hexdigest()
