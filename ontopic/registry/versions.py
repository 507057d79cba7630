"""The MLflow model registry: its versions are the models, its aliases are the deployment state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import BaseModel, ConfigDict

from ontopic.errors import UserError
from ontopic.state.whole_file import whole_folder

CHAMPION, CHALLENGER, BASE = "champion", "challenger", "base"
_DIGEST, _COMPLETE = "ontopic.digest", "ontopic.complete"
_PROMOTION = "ontopic.promotion."
_MOST_WHY = 1000


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
    name: str, folder: Path, *, digest: str, run_id: str, state: Path, tags: Mapping[str, str], alias: str | None = None
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
            return _fetched(client, version, state=state)
    client.log_artifacts(run_id, str(folder), artifact_path="model")
    version = client.create_model_version(
        name, source=f"runs:/{run_id}/model", run_id=run_id, tags={_DIGEST: digest, **tags}
    )
    client.set_model_version_tag(name, version.version, _COMPLETE, "true")
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return _fetched(client, client.get_model_version(name, version.version), state=state)


def find(name: str, which: str, *, state: Path) -> RegisteredModel:
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
            return _fetched(client, versions[0], state=state)
        if which.isdigit():
            return _fetched(client, client.get_model_version(name, which), state=state)
        return _fetched(client, client.get_model_version_by_alias(name, which), state=state)
    except MlflowException as error:
        existing = ", ".join(str(v.version) for v in _versions(client, name)) or "none; run `python run.py` first"
        raise UserError(f"{name!r} has no version or alias {which!r}; its versions are: {existing}") from error


class Promotion(BaseModel):
    """One move of the champion alias, kept as a tag of the registered model, for an auditor.

    Attributes:
        before: the champion until then; empty for the first.
        by: who moved it: a person, or the loop.
        why: at most 1,000 characters.
        rollback: whether it went back to an earlier champion.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    version: str
    before: str
    by: str
    why: str
    rollback: bool = False


def champion_version(name: str) -> str:
    """The champion's version; empty where there is none. Asks the registry alone: no weights are fetched."""
    try:
        return str(MlflowClient().get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return ""
        raise


def ensure_champion(name: str, version: str) -> None:
    """Make ``version`` the champion where there is none."""
    if not champion_version(name):
        promote(name, version, by="the loop", why="the base model: there was no champion")


def promote(
    name: str, version: str, *, by: str, why: str, at: datetime | None = None, tags: Mapping[str, str] | None = None
) -> Promotion:
    """Make ``version`` the champion: write the evidence as tags first, then who, when and why, then move the alias.

    Args:
        at: now where it is not given.
        tags: of the version.

    Raises:
        UserError: there is no such version, or it is the champion.
    """
    _checked(name, version)
    tag(name, version, tags=tags or {})
    return _move(
        name,
        Promotion(
            at=at or datetime.now(UTC), version=version, before=champion_version(name), by=by, why=why[:_MOST_WHY]
        ),
    )


def roll_back(name: str, by: str, *, why: str, at: datetime | None = None) -> Promotion:
    """Give the alias back to the champion before the present one.

    Raises:
        UserError: there was none before, or its version is gone.
    """
    champion = champion_version(name)
    back = predecessor(name, champion)
    if back is None:
        raise UserError(f"there was no champion before version {champion or 'none'} of {name!r}; promote a version")
    _checked(name, back)
    return _move(
        name,
        Promotion(at=at or datetime.now(UTC), version=back, before=champion, by=by, why=why[:_MOST_WHY], rollback=True),
    )


def predecessor(name: str, version: str) -> str | None:
    """Whose place ``version`` took when it was last promoted; ``None`` where it took none."""
    for each in reversed(promotions(name)):
        if each.version == version and not each.rollback:
            return each.before or None
    return None


def promotions(name: str) -> list[Promotion]:
    """Every move of the champion alias, the oldest first."""
    try:
        tags = MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    moves = (value for key, value in sorted(tags.items()) if key.startswith(_PROMOTION))
    return [Promotion.model_validate_json(move) for move in moves]


def _move(name: str, promotion: Promotion) -> Promotion:
    client = MlflowClient()
    client.set_registered_model_tag(name, f"{_PROMOTION}{promotion.at:%Y%m%dT%H%M%S%f}", promotion.model_dump_json())
    client.set_registered_model_alias(name, CHAMPION, promotion.version)
    return promotion


def _checked(name: str, version: str) -> None:
    existing = [str(v.version) for v in _versions(MlflowClient(), name)]
    if version not in existing:
        among = ", ".join(existing) or "none; run `python run.py` first"
        raise UserError(f"{name!r} has no version {version[:80]!r}; its versions are: {among}")
    if version == champion_version(name):
        raise UserError(f"version {version} of {name!r} is the champion already")


def tags_of(name: str, version: str) -> dict[str, str]:
    """The tags of a version."""
    return dict(MlflowClient().get_model_version(name, version).tags)


def tag(name: str, version: str, *, tags: Mapping[str, str]) -> None:
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


def _versions(client: MlflowClient, name: str, *, complete: bool = True) -> list[ModelVersion]:
    """Versions from oldest to newest; ``complete`` leaves out what a crash left half-registered."""
    found = client.search_model_versions(f"name = '{name}'")
    return sorted((v for v in found if not complete or _COMPLETE in v.tags), key=lambda v: int(v.version))


def _fetched(client: MlflowClient, version: ModelVersion, *, state: Path) -> RegisteredModel:
    source = client.get_model_version_download_uri(version.name, version.version)
    # Artifacts on this machine are used where they are; others are downloaded once, to a place that stays.
    number = str(version.version)
    folder = state / "registry" / version.name / number
    if urlsplit(source).scheme in ("", "file"):
        folder = Path(mlflow.artifacts.download_artifacts(source))
    elif not folder.is_dir():
        with whole_folder(folder) as part:
            mlflow.artifacts.download_artifacts(source, dst_path=str(part))
            (downloaded,) = part.iterdir()
            for path in downloaded.iterdir():
                path.rename(part / path.name)
            downloaded.rmdir()
    return RegisteredModel(
        name=version.name,
        version=number,
        folder=folder,
        digest=version.tags.get(_DIGEST, ""),
        run_id=version.run_id or "",
    )
