"""Results of earlier runs that are gone: their steps run again, in place of what ZenML's cache would give."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from zenml.client import Client
from zenml.models import ArtifactVersionResponse

from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import Workspace

_PAGE = 500
_NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # ZenML's times have no zone


def forget_lost_results(workspace: Workspace, registered_model: str) -> int:
    """Let the cache forget each step whose result is gone: the artifact's files, the page or the model version that it
    names. Only where ZenML keeps its artifacts in the state folder.

    Returns:
        How many steps.
    """
    client, versions = Client(), set(open_registry(workspace, registered_model).versions())
    lost = {step for artifact, step in _ours(client, workspace) if not _is_there(artifact, versions)}
    for step in lost:
        client.update_step_run(step, cache_expires_at=_NOT_BEFORE)
    return len(lost)


def _ours(client: Client, workspace: Workspace) -> Iterator[tuple[ArtifactVersionResponse, UUID]]:
    """The artifacts in the state folder, each with the step run that made it."""
    page, pages = 1, 1
    while page <= pages:
        found = client.list_artifact_versions(size=_PAGE, page=page)
        pages, page = found.total_pages, page + 1
        for artifact in found.items:
            if artifact.producer_step_run_id and Path(artifact.uri).is_relative_to(workspace.zenml):
                yield artifact, artifact.producer_step_run_id


def _is_there(artifact: ArtifactVersionResponse, versions: set[str]) -> bool:
    folder = Path(artifact.uri)
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    match artifact.artifact.name:
        case "base" | "challenger":
            return artifact.load() in versions
        case "decision" | "monitored":
            return bool(artifact.load().report.is_file())
    return True
