"""Local judges and a guard's card on this machine, also where another one learned and measured them.

Both lie in the state folder. Where machines share the state, what one of them has learned is stored there too, and the
others fetch it once: a judge is what its name says, and never changes.
"""

from __future__ import annotations

import json
from pathlib import Path

from ontopic.state.whole_file import whole_file, whole_folder
from ontopic.state.workspace import Workspace


def judge_at_hand(judge_id: str, workspace: Workspace) -> Path | None:
    """The folder of a local judge, fetched where it is only in the shared state; ``None`` where it is nowhere.

    Raises:
        UserError: it was changed after it was stored.
    """
    folder = workspace.judges / judge_id
    if folder.is_dir():
        return folder
    if workspace.state_url is None or not (stored := workspace.files.within(folder)):
        return None
    with whole_folder(folder) as part:
        for path in stored:
            (part / path.name).write_bytes(workspace.files.read(path))
    return folder


def share_judge(folder: Path, workspace: Workspace) -> None:
    """Let other machines have a judge that is at hand here."""
    if workspace.state_url is None or workspace.files.within(folder):
        return
    workspace.files.write_folder(folder, judge_files(folder))


def judge_files(folder: Path) -> list[tuple[str, bytes]]:
    """What is stored of a judge: its files, without what an earlier release wrote of the encoder as it was published.

    Raises:
        OSError, ValueError: it is no judge.
    """
    from ontopic.judges.local.judge import tuned_part  # with torch

    read = ((path, path.read_bytes()) for path in sorted(folder.iterdir()))
    return [(path.name, tuned_part(content) if path.suffix == ".safetensors" else content) for path, content in read]


def guard_at_hand(registered_model: str, workspace: Workspace) -> Path | None:
    """The file of a guard's card, as it is by now, with its judge beside it; ``None`` where the guard has no card.

    Raises:
        UserError: card or judge was changed after it was stored.
    """
    path = workspace.guard(registered_model)
    if workspace.state_url is None:
        return path if path.is_file() else None
    try:
        card = workspace.files.read(path)
    except FileNotFoundError:
        return None
    judge_at_hand(str(json.loads(card)["judge_id"]), workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(card)
    return path
