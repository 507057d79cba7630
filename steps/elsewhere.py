"""What a step on another machine is given in place of the state folder: an artifact with what it cannot have there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from zenml.materializers.base_materializer import BaseMaterializer

from ontopic.state.carried_files import carry, state_folder
from ontopic.state.workspace import Workspace, open_workspace

_ABOUT, _LOCAL = "about.json", "brought-along"


class BroughtAlong(BaseModel):
    """What goes to the machines of a remote stack.

    Attributes:
        mlflow_uri: as they reach MLflow.
        files: of the user's that steps open, such as labelled questions: their paths on the machine that starts a run.
    """

    model_config = ConfigDict(frozen=True)
    mlflow_uri: str
    files: list[Path]


class BroughtAlongMaterializer(BaseMaterializer):
    """Keeps ``BroughtAlong`` with the files' contents; loaded, it is the ``Workspace`` of the machine that loads it.

    ZenML's cache goes by the contents, and by no folder of any machine.
    """

    ASSOCIATED_TYPES = (BroughtAlong, Workspace)
    SKIP_REGISTRATION = True  # a workspace is a parameter where the steps run here

    def save(self, data: BroughtAlong) -> None:
        """Copy the files into the artifact store, each under its hash."""
        names = {}
        for path in data.files:
            content = path.read_bytes()
            names[str(path)] = f"{hashlib.sha256(content).hexdigest()}{path.suffix}"
            with self.artifact_store.open(f"{self.uri}/{names[str(path)]}", "wb") as file:
                file.write(content)
        with self.artifact_store.open(f"{self.uri}/{_ABOUT}", "wb") as file:
            file.write(_Kept(mlflow_uri=data.mlflow_uri, files=names).model_dump_json().encode())

    def load(self, data_type: type[Any]) -> Workspace:
        """Make this machine's state folder, and have the files opened there."""
        with self.artifact_store.open(f"{self.uri}/{_ABOUT}", "rb") as file:
            kept = _Kept.model_validate_json(file.read())
        os.environ.setdefault("MLFLOW_TRACKING_URI", kept.mlflow_uri)
        workspace = open_workspace(state_folder()).model_copy(
            update={"mlflow_uri": kept.mlflow_uri, "is_passing": True}
        )
        copies = {}
        for path, name in kept.files.items():
            copies[path] = workspace.root / _LOCAL / Path(name).name
            copies[path].parent.mkdir(exist_ok=True)
            with self.artifact_store.open(f"{self.uri}/{name}", "rb") as file:
                copies[path].write_bytes(file.read())
        carry(copies)
        return workspace

    def compute_content_hash(self, data: BroughtAlong) -> str:
        """Of MLflow's address, and of each file's path and content."""
        found = hashlib.sha256(data.mlflow_uri.encode())
        for path in sorted(data.files):
            found.update(f"\n{path}\n{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return found.hexdigest()


class _Kept(BaseModel):
    mlflow_uri: str
    files: dict[str, str]
