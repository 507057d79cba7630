"""Checkpoints in the artifact store, from which a training goes on that moved to another machine."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenml.artifact_stores import BaseArtifactStore

_FOLDER, _ARCHIVE, _PART = "checkpoints", ".tar", ".part"


class KeptCheckpoints:
    """The newest checkpoint of one training, as one archive.

    Args:
        store: the artifact store.
        inputs: names the training: the same inputs go on from one another's.
    """

    def __init__(self, store: BaseArtifactStore, inputs: str) -> None:
        self._store, self._folder = store, f"{store.path.rstrip('/')}/{_FOLDER}/{inputs}"

    def keep(self, checkpoint: Path) -> None:
        """Have a whole checkpoint's folder in the store, in place of those before it."""
        uri = f"{self._folder}/{checkpoint.name}{_ARCHIVE}"
        self._store.makedirs(self._folder)
        # By a name of its own until it is whole: a process may end while it writes.
        with self._store.open(f"{uri}{_PART}", "wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
            archive.add(checkpoint, arcname=checkpoint.name)
        self._store.rename(f"{uri}{_PART}", uri, overwrite=True)
        for name in self._kept():
            if name != f"{checkpoint.name}{_ARCHIVE}":
                self._store.remove(f"{self._folder}/{name}")

    def fetch(self, into: Path) -> None:
        """Have the newest checkpoint in a folder, where there is one and the folder has none."""
        kept = sorted(self._kept(), key=_step)
        if not kept or (into / kept[-1].removesuffix(_ARCHIVE)).is_dir():
            return
        into.mkdir(parents=True, exist_ok=True)
        with (
            self._store.open(f"{self._folder}/{kept[-1]}", "rb") as file,
            tarfile.open(fileobj=file, mode="r|") as archive,
        ):
            archive.extractall(into, filter="data")

    def remove(self) -> None:
        """Forget them, once the version is registered."""
        if self._store.exists(self._folder):
            self._store.rmtree(self._folder)

    def _kept(self) -> list[str]:
        if not self._store.exists(self._folder):
            return []
        names = (str(name).rstrip("/").rpartition("/")[2] for name in self._store.listdir(self._folder))
        return [name for name in names if name.endswith(_ARCHIVE)]


def _step(name: str) -> int:
    """Of ``checkpoint-10.tar``: 10."""
    return int(name.removesuffix(_ARCHIVE).rpartition("-")[2])
