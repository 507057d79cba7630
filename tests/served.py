"""What tests serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.process import Serving


def smol(model_folder: Path, state: Path, **more: Any) -> Serving:
    """Version ``v7`` of a model that is called ``smol``, whose traffic is ``traffic.db`` in the state folder."""
    values = {"model_version": "v7", "model_name": "smol", "traffic": state / "traffic.db"}
    return Serving(model_folder=model_folder, state=state, **(values | more))
