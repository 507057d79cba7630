"""A gate's evidence without what is erased: the promotion record names these files by their hashes, so each change is
noted with both, for the entry on the erasure."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ontopic.state.erased_files import gone_lines, left_of
from ontopic.state.erasing import Erasing
from ontopic.state.workspace import Workspace

REWRITTEN = "rewritten"
"""The kind of note on a file: its sha256 before and its path, and the sha256 after, which is empty where it is gone."""


def erase_from_evidence(workspace: Workspace, erasing: Erasing) -> None:
    """Take it out of all gates' files: an answer with its verdict, which stands on the same line of another file."""
    files = workspace.files
    paths = files.within(workspace.evidence)
    for answers in (path for path in paths if path.name.endswith("-answers.jsonl")):
        verdicts = answers.with_name(answers.name.replace("-answers.", "-verdicts."))
        _erase_abreast([path for path in (answers, verdicts) if path in paths], workspace, erasing=erasing)
    for path in paths:
        content = files.read(path)
        if (left := left_of(path.name, content, erasing=erasing)) != content:
            _write(path, left, workspace=workspace, erasing=erasing)


def _erase_abreast(paths: list[Path], workspace: Workspace, *, erasing: Erasing) -> None:
    """The verdicts go first: were they to stay after a kill, nothing would say any more which they are."""
    texts = {path: workspace.files.read(path).decode() for path in reversed(paths)}
    gone = set().union(*(gone_lines(text, erasing) for text in texts.values()))
    for path, text in texts.items() if gone else ():
        left = "\n".join(line for number, line in enumerate(text.split("\n")) if number not in gone)
        _write(path, left.encode(), workspace=workspace, erasing=erasing)


def _write(path: Path, content: bytes | None, *, workspace: Workspace, erasing: Erasing) -> None:
    """Note both hashes before the file changes."""
    before = hashlib.sha256(workspace.files.read(path)).hexdigest()
    after = "" if content is None else hashlib.sha256(content).hexdigest()
    erasing.note(REWRITTEN, f"{before} {path.relative_to(workspace.root).as_posix()}", value=after)
    if content is None:
        workspace.files.delete(path)
        return
    workspace.files.write(path, content)
    erasing.count("files of gates' evidence")
