"""Whole models into the registry: the base as it came, what was trained, and the adapters of earlier releases."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ontopic.config.model_settings import Precision
from ontopic.registry import versions
from ontopic.registry.transformers_flavour import describe
from ontopic.registry.versions import RegisteredModel
from ontopic.state.machine_cache import is_cached
from ontopic.state.whole_file import folder_sha256, linked_folder
from ontopic.state.workspace import Workspace
from ontopic.training.merging import adapter_in, merge


def register_base(
    name: str, folder: Path, *, workspace: Workspace, run_id: str, tags: Mapping[str, str]
) -> RegisteredModel:
    """Register a model as it came, in MLflow's flavour. The folder itself is left alone.

    Returns:
        The new version, or the one that was made from the same files.
    """
    with _building(workspace) as whole:
        _like(folder, whole, workspace=workspace)
        describe(whole, name)
        return versions.register(
            name,
            whole,
            workspace=workspace,
            digest=folder_sha256(whole),
            run_id=run_id,
            tags={**tags, versions.MADE_FROM: folder_sha256(folder)},
        )


def register_trained(
    adapter: Path,
    base: RegisteredModel,
    *,
    precision: Precision,
    workspace: Workspace,
    run_id: str,
    tags: Mapping[str, str],
) -> RegisteredModel:
    """Merge an adapter into the version that it was trained from, and register the whole as the challenger.

    Args:
        precision: that it was trained in.

    Returns:
        The new version, or the one that was made from the same adapter.
    """
    with _building(workspace) as whole:
        merge(adapter, base.folder, into=whole, precision=precision)
        describe(whole, base.name)
        return versions.register(
            base.name,
            whole,
            workspace=workspace,
            digest=folder_sha256(whole),
            run_id=run_id,
            tags={
                **tags,
                versions.BASE_VERSION: base.version,
                versions.BASE_DIGEST: base.digest,
                versions.MADE_FROM: folder_sha256(adapter),
            },
            challenger=True,
        )


def bring_along(name: str, *, workspace: Workspace, say: Callable[[str], object] | None = None) -> None:
    """Make the versions whole that an earlier release registered: as adapters, which named a path, and their base.

    Each keeps its number, its run and its tags but for the digest; what it was before is its ``MADE_FROM``. Where all
    are whole, only tags are read. An adapter whose base is gone stays what it is, and is said.

    Args:
        say: told in a line what was done; on standard error where it is not given.
    """
    if not versions.older(name, workspace=workspace):
        return
    with _building(workspace) as whole:
        for number, tags in versions.older(name, workspace=workspace).items():  # another command may have been first
            found = versions.find(name, number, workspace=workspace)
            if (adapter := adapter_in(found.folder)) is not None:
                base = versions.base_of(found, tags, workspace=workspace)
                if base is None:
                    _said(say, f"version {number} of {name!r} is an adapter whose base is gone; it cannot be loaded")
                    continue
                merge(adapter, base, into=whole)
            elif (found.folder / "config.json").is_file():
                _like(found.folder, whole, workspace=workspace)
            else:  # it never was a model; who loads it is told
                continue
            describe(whole, name)
            versions.replace(found, whole, workspace=workspace)
            _said(say, f"version {number} of {name!r} was registered by an earlier release; it is a whole model now")
            _empty(whole)


def _said(say: Callable[[str], object] | None, line: str) -> None:
    if say is not None:
        say(line)
    else:
        print(line, file=sys.stderr)


@contextmanager
def _building(workspace: Workspace) -> Iterator[Path]:
    """An empty folder in the state folder, for one process at a time; what a killed one left in it is removed."""
    workspace.building.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.building.with_suffix(".lock")):
        shutil.rmtree(workspace.building, ignore_errors=True)
        workspace.building.mkdir()
        try:
            yield workspace.building
        finally:
            shutil.rmtree(workspace.building, ignore_errors=True)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _like(folder: Path, into: Path, *, workspace: Workspace) -> None:
    """The same files. What a user gave is copied: they may write it again."""
    if folder.resolve().is_relative_to(workspace.root) or is_cached(folder):
        linked_folder(folder, into)
    else:
        shutil.copytree(folder, into, dirs_exist_ok=True)
