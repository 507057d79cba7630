"""Versions in MLflow's model registry, with their weights on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from ontopic.errors import UserError
from ontopic.registry.mlflow_file import open_file
from ontopic.registry.promotions import COMPLETE, open_registry
from ontopic.state.whole_file import folder_sha256, whole_folder
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DIGEST = "ontopic.digest"
"""The tag of a version with the sha256 of its weights when they were registered."""
BASE_VERSION = "ontopic.base_version"
"""The tag of a version that was trained with the version that it was trained from."""
MADE_FROM = "ontopic.made_from"
"""The tag of a whole version with the sha256 of what it was made from: the base's files as they came, or the adapter.
One without it is of a release whose versions were adapters."""


class RegisteredModel(BaseModel):
    """One version of a registered model, with its weights on this machine.

    Attributes:
        folder: holds the model, or a PEFT adapter that names its base.
        digest: sha256 (hex) of the weights, as recorded at registration.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    version: str
    folder: Path
    digest: str
    run_id: str


def register(
    name: str,
    folder: Path,
    *,
    workspace: Workspace,
    digest: str,
    run_id: str,
    tags: Mapping[str, str],
    challenger: bool = False,
) -> RegisteredModel:
    """Log ``folder`` to the run and register it as a new version, or return the version that has this digest already.

    A version counts only once its last tag is written, so that a crash in between leaves nothing half-registered: the
    remains are deleted by the next call.

    Args:
        challenger: whether it becomes the challenger at the end; the champion does not.
    """
    client = _client(workspace)
    _ensure_registered(client, name)
    for version in _versions(client, name):
        if COMPLETE not in version.tags:
            client.delete_model_version(name, version.version)
        elif version.tags.get(DIGEST) == digest:
            if challenger:
                open_registry(workspace, name).challenge(str(version.version))
            return _fetched(client, version, workspace=workspace)
    client.log_artifacts(run_id, str(folder), artifact_path="model")
    version = client.create_model_version(
        name, source=f"runs:/{run_id}/model", run_id=run_id, tags={DIGEST: digest, **tags}
    )
    client.set_model_version_tag(name, version.version, COMPLETE, "true")
    if challenger:
        open_registry(workspace, name).challenge(str(version.version))
    return _fetched(client, client.get_model_version(name, version.version), workspace=workspace)


def find(name: str, which: str, *, workspace: Workspace) -> RegisteredModel:
    """The version that ``which`` names: ``champion``, ``challenger``, ``base`` or a version number, as
    ``ModelRegistry.version`` has them.

    Raises:
        UserError: there is no such version.
    """
    version = open_registry(workspace, name).version(which)
    client = _client(workspace)
    return _fetched(client, client.get_model_version(name, version), workspace=workspace)


def weights_now(name: str, version: str, *, workspace: Workspace) -> tuple[str, ...]:
    """sha256 (hex) of a version's weights as they are now, not as they were registered: one for each content that a
    copy on this machine has, so several where one was changed; none where they are gone.

    Where MLflow keeps its data in the state folder, it is not imported.
    """
    tables = open_file(workspace.mlflow_file, name) if workspace.owns_mlflow else None
    if tables is None:
        folders = [find(name, version, workspace=workspace).folder]
    else:
        logged = tables.artifacts(version)
        folders = [workspace.registry / name / version, *([logged] if logged else [])]
    return tuple(sorted({folder_sha256(folder) for folder in folders if folder.is_dir()}))


def _client(workspace: Workspace) -> MlflowClient:
    from mlflow import MlflowClient  # two seconds, which who only imports this need not wait

    return MlflowClient(tracking_uri=workspace.mlflow_uri)


def _ensure_registered(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions from oldest to newest, with what a crash left half-registered."""
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def _fetched(client: MlflowClient, version: ModelVersion, *, workspace: Workspace) -> RegisteredModel:
    from mlflow.artifacts import download_artifacts

    source, uri = client.get_model_version_download_uri(version.name, version.version), workspace.mlflow_uri
    if base := version.tags.get(BASE_VERSION):
        _fetch_base(client, version, base=base, workspace=workspace)
    # Artifacts on this machine are used where they are; others are downloaded once, to a place that stays.
    number = str(version.version)
    folder = workspace.registry / version.name / number
    if urlsplit(source).scheme in ("", "file"):
        folder = Path(download_artifacts(source, tracking_uri=uri))
    elif not _holds(folder, version.tags.get(DIGEST, "")):
        with whole_folder(folder) as part:
            download_artifacts(source, dst_path=str(part), tracking_uri=uri)
            (downloaded,) = part.iterdir()
            for path in downloaded.iterdir():
                path.rename(part / path.name)
            downloaded.rmdir()
        folder.with_name(f"{number}.sha256").unlink(missing_ok=True)
    return RegisteredModel(
        name=version.name,
        version=number,
        folder=folder,
        digest=version.tags.get(DIGEST, ""),
        run_id=version.run_id or "",
    )


def _holds(folder: Path, digest: str) -> bool:
    """Whether these weights are in the folder: where a registered model was deleted, its versions count from 1 again.

    The digest of what was downloaded is kept beside the folder, so that it is computed once.
    """
    if not folder.is_dir():
        return False
    beside = folder.with_name(f"{folder.name}.sha256")
    found = beside.read_text() if beside.is_file() else folder_sha256(folder)
    if found == digest and not beside.is_file():
        with suppress(OSError):  # a state folder that may only be read
            beside.write_text(digest)
    return found == digest or not digest


def _fetch_base(client: MlflowClient, version: ModelVersion, *, base: str, workspace: Workspace) -> None:
    """Have the base of an adapter beside it, as on a machine that has never loaded it."""
    from mlflow.exceptions import MlflowException

    try:
        _fetched(client, client.get_model_version(version.name, base), workspace=workspace)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        if not (workspace.registry / version.name / base).is_dir():
            raise UserError(
                f"version {version.version} of {version.name!r} is an adapter of version {base}, which was deleted; "
                "promote another version"
            ) from None
