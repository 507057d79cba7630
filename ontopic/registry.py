"""The MLflow model registry: its versions are the models, its aliases are the deployment state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ontopic.errors import UserError
from ontopic.models import written_whole

CHAMPION, CHALLENGER, BASE = "champion", "challenger", "base"
_DIGEST, _COMPLETE = "ontopic.digest", "ontopic.complete"


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a registered model, with its weights on this machine.

    Attributes:
        folder: holds the model, or a PEFT adapter that names its base.
        digest: sha256 (hex) of the weights, as recorded at registration.
    """

    name: str
    version: str
    folder: Path
    digest: str
    run_id: str


def register(
    name: str, folder: Path, digest: str, run_id: str, state: Path, tags: Mapping[str, str], alias: str | None = None
) -> RegisteredModel:
    """Log ``folder`` to the run and register it as a new version, or return the version that has this digest already.

    A version counts only once its last tag is written, so that a crash in between leaves nothing half-registered: the
    remains are deleted by the next call.

    Args:
        alias: set on the version at the end.
    """
    client = MlflowClient()
    _ensure_registered(client, name)
    for version in _versions(client, name, complete=False):
        if _COMPLETE not in version.tags:
            client.delete_model_version(name, version.version)
        elif version.tags.get(_DIGEST) == digest:
            if alias:
                client.set_registered_model_alias(name, alias, version.version)
            return _fetched(client, version, state)
    client.log_artifacts(run_id, str(folder), artifact_path="model")
    version = client.create_model_version(
        name, source=f"runs:/{run_id}/model", run_id=run_id, tags={_DIGEST: digest, **tags}
    )
    client.set_model_version_tag(name, version.version, _COMPLETE, "true")
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return _fetched(client, client.get_model_version(name, version.version), state)


def find(name: str, which: str, state: Path) -> RegisteredModel:
    """The version that ``which`` names: ``champion``, ``challenger``, ``base`` (the oldest) or a version number.

    Raises:
        UserError: there is no such version.
    """
    client = MlflowClient()
    try:
        if which == BASE:
            versions = _versions(client, name)
            if not versions:
                raise UserError(f"no model is registered as {name!r} yet; run `python run.py` first")
            return _fetched(client, versions[0], state)
        if which.isdigit():
            return _fetched(client, client.get_model_version(name, which), state)
        return _fetched(client, client.get_model_version_by_alias(name, which), state)
    except MlflowException as error:
        existing = ", ".join(str(v.version) for v in _versions(client, name)) or "none; run `python run.py` first"
        raise UserError(f"{name!r} has no version or alias {which!r}; its versions are: {existing}") from error


def ensure_champion(name: str, version: str) -> None:
    """Make ``version`` the champion where there is none."""
    client = MlflowClient()
    if CHAMPION not in client.get_registered_model(name).aliases:
        client.set_registered_model_alias(name, CHAMPION, version)


def promote(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Make ``version`` the champion: write the evidence as tags first, then move the alias."""
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.set_registered_model_alias(name, CHAMPION, version)


def tag(name: str, version: str, tags: Mapping[str, str]) -> None:
    """Write tags on a version."""
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)


def _ensure_registered(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: MlflowClient, name: str, complete: bool = True) -> list[ModelVersion]:
    """Versions from oldest to newest; ``complete`` leaves out what a crash left half-registered."""
    found = client.search_model_versions(f"name = '{name}'")
    return sorted((v for v in found if not complete or _COMPLETE in v.tags), key=lambda v: int(v.version))


def _fetched(client: MlflowClient, version: ModelVersion, state: Path) -> RegisteredModel:
    source = client.get_model_version_download_uri(version.name, version.version)
    # Artifacts on this machine are used where they are; others are downloaded once, to a place that stays.
    number = str(version.version)
    folder = state / "registry" / version.name / number
    if urlsplit(source).scheme in ("", "file"):
        folder = Path(mlflow.artifacts.download_artifacts(source))
    elif not folder.is_dir():
        with written_whole(folder) as part:
            mlflow.artifacts.download_artifacts(source, dst_path=str(part))
            (downloaded,) = part.iterdir()
            for path in downloaded.iterdir():
                path.rename(part / path.name)
            downloaded.rmdir()
    return RegisteredModel(version.name, number, folder, version.tags.get(_DIGEST, ""), version.run_id or "")
