"""The state folder of ``demo``: one of a whole run of the loop, without weights, keys and paths, as one file.

``python -m ontopic.state.demo_state STATE`` (``make demo-state``) packs a state folder into the package.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ontopic.errors import UserError
from ontopic.state.moved import place_of, rename_within, write_place
from ontopic.state.whole_file import whole_file, whole_folder
from ontopic.state.workspace import Workspace

ARCHIVE = Path(__file__).resolve().parents[1] / "data" / "demo" / "state.tar.xz"
"""The packed folder; its sha256 is in the file of the same name with ``.sha256`` behind it."""
_CODE = Path(__file__).resolve().parents[2]
_PLACE, _PLACE_OF_CODE = Path("/ontopic-demo/state"), Path("/ontopic-demo/ontopic")
_SECRETS = ("keys.db", "user.key", "verdicts.db", "spool", "mlflow_uri", "erasures")
_WEIGHTS = ("training", "models", "registry", "openvino")  # folders
_PASSING = ("loop", "bentoml", "serving.json", "demo")
_SUFFIXES = (".safetensors", ".joblib", ".bin", ".gguf", ".lock", ".log", ".part")
_LARGEST_OF_MODEL = 100_000  # bytes of what is kept of a logged model: its description, not its tokenizer
_LARGEST_UNPACKED = 1 << 30


def pack(state: Path, archive: Path = ARCHIVE, *, code: Path = _CODE) -> list[str]:
    """Pack a state folder after a run of the loop, and write its digest beside; the folder itself stays as it is.

    Names of persons stay where a promotion record holds them, as it is signed line by line: pack what a neutral
    account has run.

    Args:
        code: the folder of ``run.py`` as the run had it, whose path is taken out too.

    Returns:
        Files that name one of these paths all the same: what the promotion record has the hash of is not changed.

    Raises:
        UserError: it is no state folder.
    """
    if not Workspace(root=state).mlflow_file.is_file():
        raise UserError(f"{state}: holds no run of the loop; run it first: python run.py --state {state}")
    state = state.resolve()
    with tempfile.TemporaryDirectory() as folder:
        copy = Workspace(root=Path(folder) / "state")
        shutil.copytree(state, copy.root, ignore=lambda at, names: _left_out(Path(at), names, root=state))
        before = place_of(copy) or state
        rename_within(copy, before, to=_PLACE)
        places_of_code = [place for place in (_cloned_from(code), code) if place]
        for place in places_of_code:
            rename_within(copy, place, to=_PLACE_OF_CODE)
        write_place(copy, _PLACE)
        for page in (page for page in copy.root.rglob("*.html") if copy.evidence not in page.parents):
            text = page.read_text(encoding="utf-8")
            page.write_text(text.replace(str(before), str(_PLACE)), encoding="utf-8")
        _link_what_is_the_same(copy.root)
        named = [path for path in _files(copy.root) if _names(path, before, *places_of_code)]
        left = [path.relative_to(copy.root).as_posix() for path in named]
        archive.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(archive) as part, tarfile.open(part, "w:xz", preset=6) as tar:
            for path in _files(copy.root):
                tar.add(path, path.relative_to(copy.root).as_posix(), recursive=False, filter=_anonymous)
    with whole_file(_digest_file(archive)) as part:
        part.write_text(f"{_sha256(archive)}  {archive.name}\n", encoding="utf-8")
    return left


def _cloned_from(code: Path) -> Path | None:
    """The folder of this machine that a checkout was cloned from, which MLflow and pip tell of."""
    asked = ["git", "-C", str(code), "config", "--get", "remote.origin.url"]
    try:
        url = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return None
    return Path(url) if url.startswith("/") else None


def unpack(folder: Path, archive: Path = ARCHIVE) -> bool:
    """Unpack the demo's state folder, whole or not at all; one that is there already stays.

    Returns:
        Whether it was unpacked now.

    Raises:
        UserError: the package has none, it is damaged, or something else is in the folder.
    """
    if not archive.is_file() or not _digest_file(archive).is_file():
        raise UserError(f"{archive}: is missing, so there is no demo; take the whole release, or run python run.py")
    digest, workspace = _digest_file(archive).read_text(encoding="utf-8").split()[0], Workspace(root=folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not workspace.demo.is_file() or workspace.demo.read_text(encoding="utf-8") != digest:
            raise UserError(f"{folder}: is not empty and not this release's demo; remove it, or give another --state")
        return False
    if _sha256(archive) != digest:
        raise UserError(f"{archive}: is not as it was released (its sha256 is another); take it from the release again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as part:
        with tarfile.open(archive, "r:xz") as tar:
            members = tar.getmembers()
            if sum(member.size for member in members) > _LARGEST_UNPACKED:
                raise UserError(f"{archive}: would need more than a gigabyte; take it from the release again")
            tar.extractall(part, members, filter="data")  # nothing outside the folder, no devices, no rights
        unpacked = Workspace(root=part)
        rename_within(unpacked, _PLACE, to=folder)
        write_place(unpacked, folder)
        unpacked.demo.write_text(digest, encoding="utf-8")
    return True


def _left_out(folder: Path, names: list[str], *, root: Path) -> set[str]:
    top = (*_SECRETS, *_WEIGHTS, *_PASSING) if folder == root else ()
    of_model = "model" in folder.relative_to(root).parts  # one that was logged to MLflow
    return {
        name for name in names if name in top or name.endswith(_SUFFIXES) or (of_model and _is_large(folder / name))
    }


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > _LARGEST_OF_MODEL


def _names(path: Path, *places: Path) -> bool:
    content = path.read_bytes()
    return any(str(place).encode() in content for place in places)


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def _link_what_is_the_same(root: Path) -> None:
    """Have files of the same content packed once: pages are in MLflow too."""
    known: dict[str, Path] = {}
    for path in list(_files(root)):
        if path.suffix in (".html", ".json", ".jsonl") and (first := known.setdefault(_sha256(path), path)) != path:
            path.unlink()
            os.link(first, path)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and times, so that the same folder gives the same file."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member


def _digest_file(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    for name in pack(Path(sys.argv[1])):
        print(f"{name}: names a path of this machine, and is packed so", file=sys.stderr)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size / 1e6:.1f} MB")
