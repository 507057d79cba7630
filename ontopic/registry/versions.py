"""Versions in MLflow's model registry, with their weights on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from ontopic.registry.promotions import COMPLETE, open_registry
from ontopic.state.whole_file import folder_sha256, linked_folder, whole_folder
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

DIGEST = "ontopic.digest"
"""The tag of a version with the sha256 of its weights when they were registered."""
BASE_VERSION = "ontopic.base_version"
"""The tag of a version that was trained with the version that it was trained from."""
BASE_DIGEST = "ontopic.base_digest"
"""The tag with that version's digest."""
MADE_FROM = "ontopic.made_from"
"""The tag of a version with the sha256 of what it was made from: the base's files as they came, or the adapter."""
_WHOLE = "ontopic.whole"  # the tag that a version of a release whose versions were adapters lacks
_PLACE = "model"  # among a run's artifacts


class RegisteredModel(BaseModel):
    """One version of a registered model, with its weights on this machine.

    Attributes:
        folder: holds the whole model with its tokenizer, as Transformers, MLflow and vLLM load it; and in ``adapter``
            what was trained, where anything was.
        digest: sha256 (hex) of the folder, as recorded at registration.
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
    """Log ``folder`` to the run and register it as a new version, or return the version that was made of the same.

    A version counts only once its last tag is written, so that a crash in between leaves nothing half-registered: the
    remains are deleted by the next call.

    Args:
        folder: a whole model, as ``transformers_flavour.describe`` leaves it.
        digest: of the folder.
        tags: where ``MADE_FROM`` is among them, a version that has the same is the same, else one that has the digest.
        challenger: whether it becomes the challenger at the end; the champion does not.
    """
    client = _client(workspace)
    _ensure_registered(client, name)
    made_from = tags.get(MADE_FROM, digest)
    for version in _versions(client, name):
        if COMPLETE not in version.tags:
            client.delete_model_version(name, version.version)
        elif made_from in (version.tags.get(MADE_FROM), version.tags.get(DIGEST)):
            if challenger:
                open_registry(workspace, name).challenge(str(version.version))
            return _fetched(client, version, workspace=workspace)
    _put(client, folder, run_id=run_id, place=_PLACE, workspace=workspace)
    version = client.create_model_version(
        name, source=f"runs:/{run_id}/{_PLACE}", run_id=run_id, tags={DIGEST: digest, _WHOLE: "true", **tags}
    )
    client.set_model_version_tag(name, version.version, COMPLETE, "true")
    if challenger:
        open_registry(workspace, name).challenge(str(version.version))
    version = client.get_model_version(name, version.version)
    if _local_folder(client, version) is None:  # what was sent need not be fetched
        _keep(folder, version, workspace=workspace)
    return _fetched(client, version, workspace=workspace)


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
    from ontopic.registry.mlflow_file import open_file  # with SQLAlchemy, which --help need not wait for

    tables = open_file(workspace.mlflow_file, name) if workspace.owns_mlflow else None
    if tables is None:
        folders = [find(name, version, workspace=workspace).folder]
    else:
        logged = tables.artifacts(version)
        folders = [workspace.registry / name / version, *([logged] if logged else [])]
    return tuple(sorted({folder_sha256(folder) for folder in folders if folder.is_dir()}))


def older(name: str, *, workspace: Workspace) -> dict[str, dict[str, str]]:
    """The versions that earlier releases registered, which may be adapters, with their tags. No weights are read."""
    tagged = open_registry(workspace, name).tagged()
    return {version: tags for version, tags in tagged.items() if _WHOLE not in tags}


def replace(model: RegisteredModel, folder: Path, *, workspace: Workspace) -> RegisteredModel:
    """Have other files under a version: its whole model, where it was registered as something less.

    A crash in between leaves the version among the ``older`` ones. Nothing is removed until all of ``folder`` is there.
    """
    client = _client(workspace)
    version, digest = client.get_model_version(model.name, model.version), folder_sha256(folder)
    place = str(version.source).removeprefix(f"runs:/{model.run_id}/")
    made_from = version.tags.get(MADE_FROM, model.digest)  # of a call that was killed
    client.set_model_version_tag(model.name, model.version, MADE_FROM, made_from)
    _put(client, folder, run_id=model.run_id, place=place, workspace=workspace)
    if _local_folder(client, version) is None:
        _remove_others(client, folder, run_id=model.run_id, place=place)
    for key, value in {DIGEST: digest, _WHOLE: "true"}.items():
        client.set_model_version_tag(model.name, model.version, key, value)
    shutil.rmtree(workspace.registry / model.name / model.version, ignore_errors=True)
    version = client.get_model_version(model.name, model.version)
    if _local_folder(client, version) is None:
        _keep(folder, version, workspace=workspace)
    return _fetched(client, version, workspace=workspace)


def base_of(model: RegisteredModel, tags: Mapping[str, str], *, workspace: Workspace) -> Path | None:
    """The weights of the version that a version was trained from; ``None`` where they are gone.

    Args:
        tags: of the version.
    """
    number = tags.get(BASE_VERSION, "")
    if number in open_registry(workspace, model.name).versions():
        return find(model.name, number, workspace=workspace).folder
    kept = workspace.registry / model.name / number
    return kept if number and kept.is_dir() else None


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


def _put(client: MlflowClient, folder: Path, *, run_id: str, place: str, workspace: Workspace) -> None:
    """Have the files of a folder among a run's artifacts; where both are in the state folder, they are not copied."""
    artifacts = _local_path(client.get_run(run_id).info.artifact_uri)
    if artifacts is None or not (_is_ours(folder, workspace) and _is_ours(artifacts, workspace)):
        client.log_artifacts(run_id, str(folder), artifact_path=place)
        return
    with whole_folder(artifacts / place) as part:
        linked_folder(folder, part)


def _remove_others(client: MlflowClient, folder: Path, *, run_id: str, place: str) -> None:
    """Remove a run's artifacts on a server beside those that ``folder`` has too."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store = get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)
    for artifact in client.list_artifacts(run_id, place):
        if not (folder / Path(artifact.path).name).exists():
            store.delete_artifacts(artifact.path)


def _keep(folder: Path, version: ModelVersion, *, workspace: Workspace) -> None:
    """Have a version's files where those of a server are fetched to."""
    kept = workspace.registry / version.name / str(version.version)
    with whole_folder(kept) as part:
        if _is_ours(folder, workspace):
            linked_folder(folder, part)
        else:
            shutil.copytree(folder, part, dirs_exist_ok=True)
    kept.with_name(f"{kept.name}.sha256").write_text(version.tags.get(DIGEST, ""))


def _is_ours(folder: Path, workspace: Workspace) -> bool:
    return folder.resolve().is_relative_to(workspace.root)


def _local_path(uri: str | None) -> Path | None:
    """The folder that a URI names, where it is on this machine."""
    parts = urlsplit(uri or "")
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.path else None


def _local_folder(client: MlflowClient, version: ModelVersion) -> Path | None:
    """The folder on this machine that a version was logged to; ``None`` where it is elsewhere."""
    run = f"runs:/{version.run_id}/"
    if version.run_id is None or not (version.source or "").startswith(run):
        return _local_path(version.source)
    artifacts = _local_path(client.get_run(version.run_id).info.artifact_uri)
    return artifacts / str(version.source).removeprefix(run) if artifacts else None


def _fetched(client: MlflowClient, version: ModelVersion, *, workspace: Workspace) -> RegisteredModel:
    """A version whose files on this machine are used where they are; others are downloaded once, to a place that
    stays."""
    from mlflow.artifacts import download_artifacts

    number, digest = str(version.version), version.tags.get(DIGEST, "")
    folder = _local_folder(client, version)
    if folder is None:
        folder = workspace.registry / version.name / number
        if not _holds(folder, digest):
            with whole_folder(folder) as part:
                source = client.get_model_version_download_uri(version.name, version.version)
                download_artifacts(source, dst_path=str(part), tracking_uri=workspace.mlflow_uri)
                (downloaded,) = part.iterdir()
                for path in downloaded.iterdir():
                    path.rename(part / path.name)
                downloaded.rmdir()
            folder.with_name(f"{number}.sha256").unlink(missing_ok=True)
    return RegisteredModel(name=version.name, version=number, folder=folder, digest=digest, run_id=version.run_id or "")


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
