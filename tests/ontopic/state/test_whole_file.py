"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ontopic.errors import UserError
from ontopic.state.whole_file import (
    check_writable,
    folder_sha256,
    is_regular,
    lasting_output,
    output_file,
    whole_file,
    whole_folder,
)

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
        with pytest.raises(UserError, match=r"cannot be written .*; give a file in"):
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


Output = Callable[[Path], AbstractContextManager[Path]]


@pytest.mark.parametrize("output", [whole_file, output_file])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, output: Output) -> None:
    (tmp_path / "folder").mkdir()
    target, near, far = tmp_path / "folder" / "target", tmp_path / "near", tmp_path / "far"
    near.symlink_to("folder/target")
    far.symlink_to(near)
    for text in ("new", "newer"):  # the link is broken at first
        with output(far) as part:
            part.write_text(text)
            assert part.parent == target.parent
        assert (target.read_text(), far.read_text()) == (text, text)
    assert far.is_symlink()
    assert near.is_symlink()
    assert not target.is_symlink()
    assert list((tmp_path / "folder").iterdir()) == [target]


def test_who_may_read_a_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.touch(mode=0o600)
    with output_file(path) as part:
        part.write_text("new")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("output", [output_file, lasting_output])
def test_a_pipe_gets_what_was_written(tmp_path: Path, output: Output) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with output(pipe) as part:
            part.write_text("line\n" * 100_000)
        assert read.result(timeout=20) == "line\n" * 100_000
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("output", [output_file, lasting_output])
@pytest.mark.parametrize("linked", [False, True])
def test_a_device_that_is_full_stays_a_device(tmp_path: Path, output: Output, linked: bool) -> None:
    path = Path("/dev/full")
    if linked:
        path = tmp_path / "link"
        path.symlink_to("/dev/full")
    with (
        pytest.raises(UserError, match=r"cannot be written \(No space left on device\); free the disk"),
        output(path) as p,
    ):
        p.write_text("text")
    assert Path("/dev/full").is_char_device()
    with output(Path("/dev/null")) as part:
        part.write_text("text")
    assert Path("/dev/null").is_char_device()


def test_what_is_no_regular_file_is_known(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/stdout")
    for path in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "/dev/no-such", tmp_path / "pipe"):
        assert not is_regular(Path(path))
    assert not is_regular(tmp_path / "link")
    assert is_regular(tmp_path / "new")
    assert is_regular(Path("/dev/shm/new"))  # noqa: S108


def test_what_cannot_be_written_is_said_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    wrong = {
        tmp_path: "Is a directory",
        tmp_path / "none" / "out": "its folder does not exist",
        tmp_path / "file" / "out": "its folder does not exist",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / ("x" * 300): "File name too long",
        Path("/dev/no-such"): "Permission denied",
    }
    for path, why in wrong.items():
        with pytest.raises(UserError) as caught:
            check_writable(path)
        assert str(caught.value).startswith(f"{path}: cannot be written ({why}); ")
