"""Which model a PEFT adapter belongs to: named so that it is found wherever the state folder is moved to."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ontopic.errors import UserError

CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"
# PEFT's card says nothing, the trainer's arguments are a pickle that nothing reads, and both hold paths.
_NOT_KEPT = ("README.md", "training_args.bin")


def base_folder(adapter: Path) -> Path:
    """The folder of an adapter's base: the one of that name beside the adapter, as versions stand in a state folder,
    else the one that it names, taken from the adapter's own folder.

    Raises:
        UserError: it is not there.
    """
    named = adapter / json.loads((adapter / CONFIG).read_text(encoding="utf-8"))[_BASE]
    for folder in (adapter.parent / named.name, named):
        if folder.is_dir():
            return folder
    raise UserError(f"{adapter} is an adapter of the model in {named}, which is not there; bring the two together")


def name_base_from(place: Path, saved: Path) -> None:
    """Let the adapter ``saved`` name its base by the way from ``place``, where it is going to be, and drop what else in
    it holds paths."""
    for name in _NOT_KEPT:
        (saved / name).unlink(missing_ok=True)
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    config[_BASE] = os.path.relpath(config[_BASE], place)
    (saved / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
