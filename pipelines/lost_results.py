"""Results of earlier runs that are gone: their steps run again, in place of what ZenML's cache would give."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from zenml.client import Client
from zenml.models import ArtifactVersionResponse
from zenml.utils.pagination_utils import depaginate

from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import Workspace
from pipelines.elsewhere import runs_elsewhere

_PAGE = 500
_NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # ZenML's times have no zone


def forget_lost_results(workspace: Workspace, registered_model: str) -> int:
    """Let the cache forget each step whose result is gone: the artifact's files, the page or the model version that it
    names. Only where ZenML keeps its artifacts in the state folder.

    Returns:
        How many steps, without those that it has forgotten before.
    """
    if runs_elsewhere():
        return 0
    client, versions = Client(), set(open_registry(workspace, registered_model).versions())
    lost = {
        artifact.producer_step_run_id
        for artifact in depaginate(client.list_artifact_versions, size=_PAGE)
        if Path(artifact.uri).is_relative_to(workspace.zenml) and not _is_there(artifact, versions)
    }
    lost -= {None, *(step.id for step in depaginate(client.list_run_steps, size=_PAGE, cache_expired=True))}
    for step in lost:
        if step is not None:
            client.update_step_run(step, cache_expires_at=_NOT_BEFORE)
    return len(lost)


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
