"""Which model a PEFT adapter belongs to: named by its digest, so that no path of one machine is kept."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = "adapter_config.json"
ADAPTER = "adapter"
"""The folder, in that of a whole model, with the adapter that was merged into it."""
_BASE = "base_model_name_or_path"
# PEFT's card says nothing, the trainer's arguments are a pickle that nothing reads, and both hold paths.
_NOT_KEPT = ("README.md", "training_args.bin")


def name_base(saved: Path, digest: str | None) -> None:
    """Let the adapter in ``saved`` name its base as ``sha256:DIGEST``, or no base, and drop what else in it holds
    paths."""
    for name in _NOT_KEPT:
        (saved / name).unlink(missing_ok=True)
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    config[_BASE] = None if digest is None else f"sha256:{digest}"
    (saved / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
