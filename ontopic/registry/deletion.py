"""Deleting a version: its weights and its place in the registry. What it was trained on and decided stays on record."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ontopic.config.watch_settings import PromotionSettings
from ontopic.errors import UserError
from ontopic.registry.approval import command, waiting
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.registry.promotions import BASE, ModelRegistry, open_registry
from ontopic.registry.versions import BASE_VERSION, MADE_FROM
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def delete(name: str, which: str, *, by: str, why: str, settings: PromotionSettings, workspace: Workspace) -> str:
    """Delete a version that nothing needs any more. Called again after a crash, it goes on.

    The entry in the promotion record comes first, the version's place in the registry goes last. Its run stays, with
    the pairs that it was trained on.

    Args:
        which: as ``ModelRegistry.version`` has it.

    Returns:
        Where its weights are left, and why; empty where they are gone.

    Raises:
        UserError: there is no such version, or it is needed.
    """
    registry = open_registry(workspace, name)
    with registry.record.deciding():  # as whoever decides on a challenger holds it
        version = registry.version(which)
        if reason := _needed(registry, version, settings=settings):
            raise UserError(f"version {version} of {name!r} is not deleted: {reason}")
        entries = registry.record.entries(name)
        if not any(entry.kind == "deletion" and entry.version == version for entry in entries):
            registry.enter("deletion", version, by=by, why=why, facts={})
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=workspace.mlflow_uri)
        left = _delete_weights(client, client.get_model_version(name, version), workspace=workspace)
        client.delete_model_version(name, version)
    return left


def _needed(registry: ModelRegistry, version: str, *, settings: PromotionSettings) -> str:
    """What a version is needed for; empty where it may go."""
    champion = registry.champion()
    tags = {each: registry.tags_of(each) for each in registry.versions()}
    if version == champion:
        return "it is the champion; promote another one first"
    if champion and version == registry.predecessor(champion):
        return f"a rollback from version {champion}, the champion, goes back to it"
    if tags[version].get(KIND, OF_BASE) == OF_BASE and version == registry.version(BASE):
        return "trainings start from it (training.start: base)"
    waits = waiting(registry.record.entries(registry.name), datetime.now(UTC), settings=settings)
    if version in {wait.version for wait in waits}:
        return f"it waits for approval; {command('reject', version)} comes first"
    for each, said in tags.items():
        if said.get(BASE_VERSION) == version and MADE_FROM not in said:
            return f"version {each} is of an earlier release, and an adapter of it; delete that one first"
    return ""


def _delete_weights(client: MlflowClient, version: Any, *, workspace: Workspace) -> str:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    copy = workspace.registry / version.name / str(version.version)
    copy.with_name(f"{copy.name}.sha256").unlink(missing_ok=True)
    shutil.rmtree(copy, ignore_errors=True)
    place = str(version.source).removeprefix(f"runs:/{version.run_id}/")
    if not version.run_id or place == version.source:
        return f"{version.source}: it is not among the artifacts of the version's run"
    try:
        logged = client.get_run(version.run_id).info.artifact_uri
        get_artifact_repository(logged, tracking_uri=workspace.mlflow_uri).delete_artifacts(place)
    except (MlflowException, NotImplementedError, OSError) as error:
        return f"{version.source}: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    return ""
