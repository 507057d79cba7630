"""A gate's evidence without what is erased: the promotion record names these files by their hashes, so each change is
noted with both, for the entry on the erasure."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from ontopic.state.erased_files import erase_from_file, gone_lines
from ontopic.state.erasing import Erasing
from ontopic.state.whole_file import whole_file
from ontopic.state.workspace import Workspace

REWRITTEN = "rewritten"
"""The kind of note on a file: its sha256 before and its path, and the sha256 after, which is empty where it is gone."""


def erase_from_evidence(workspace: Workspace, erasing: Erasing) -> None:
    """Take it out of all gates' files: an answer with its verdict, which stands on the same line of another file."""
    for folder in sorted(path for path in workspace.evidence.glob("*") if path.is_dir()):
        for answers in sorted(folder.glob("*-answers.jsonl")):
            verdicts = folder / answers.name.replace("-answers.", "-verdicts.")
            _erase_abreast([path for path in (answers, verdicts) if path.is_file()], workspace, erasing=erasing)
        for path in sorted(folder.iterdir()):
            _erase(path, workspace, erasing=erasing)


def _erase_abreast(paths: list[Path], workspace: Workspace, *, erasing: Erasing) -> None:
    """The verdicts go first: were they to stay after a kill, nothing would say any more which they are."""
    texts = {path: path.read_text(encoding="utf-8") for path in reversed(paths)}
    gone = set().union(*(gone_lines(text, erasing) for text in texts.values()))
    for path, text in texts.items() if gone else ():
        left = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in gone)
        _write(path, left.encode(), workspace=workspace, erasing=erasing)


def _erase(path: Path, workspace: Workspace, *, erasing: Erasing) -> None:
    """By a copy, so that both hashes are noted before the file changes."""
    copy = path.with_name(f".erased-{path.name}")
    try:
        shutil.copyfile(path, copy)
        if erase_from_file(copy, erasing):
            _write(path, copy.read_bytes() if copy.exists() else None, workspace=workspace, erasing=erasing)
    finally:
        copy.unlink(missing_ok=True)


def _write(path: Path, content: bytes | None, *, workspace: Workspace, erasing: Erasing) -> None:
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    after = "" if content is None else hashlib.sha256(content).hexdigest()
    erasing.note(REWRITTEN, f"{before} {path.relative_to(workspace.root).as_posix()}", value=after)
    if content is None:
        path.unlink()
        return
    with whole_file(path) as part:
        part.write_bytes(content)
    erasing.count("files of gates' evidence")
