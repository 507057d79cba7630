"""A registered model in any MLflow: a server, or a database of the user's; and whether MLflow can be used at all."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow.db import upgrade
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from ontopic.errors import UserError
from ontopic.state.whole_file import whole_file
from ontopic.state.workspace import Workspace

# At first contact, where the user has set none: MLflow would try for minutes.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
_reached = set[str]()
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the second: an alias that no version bears


class ClientTables:
    """``RegistryTables`` by MLflow's client.

    Args:
        uri: MLflow's tracking URI.
        name: of the registered model.
    """

    def __init__(self, uri: str, name: str) -> None:
        self._client, self._name = MlflowClient(tracking_uri=uri), name

    def models(self) -> list[str]:
        """See ``RegistryTables``."""
        found, token = list[str](), None
        while True:
            page = self._client.search_registered_models(page_token=token)
            found += [model.name for model in page]
            if not (token := page.token):
                return found

    def versions(self) -> dict[str, dict[str, str]]:
        """See ``RegistryTables``."""
        found = sorted(self._client.search_model_versions(f"name = '{self._name}'"), key=lambda each: int(each.version))
        return {str(each.version): dict(each.tags) for each in found}

    def alias(self, alias: str) -> str:
        """See ``RegistryTables``."""
        try:
            return str(self._client.get_model_version_by_alias(self._name, alias).version)
        except MlflowException as error:
            if error.error_code in _ABSENT:
                return ""
            raise

    def set_alias(self, alias: str, version: str) -> None:
        """See ``RegistryTables``."""
        self._client.set_registered_model_alias(self._name, alias, version)

    def delete_alias(self, alias: str) -> None:
        """See ``RegistryTables``."""
        self._client.delete_registered_model_alias(self._name, alias)

    def tags(self) -> dict[str, str]:
        """See ``RegistryTables``."""
        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def set_tag(self, key: str, value: str) -> None:
        """See ``RegistryTables``."""
        self._client.set_registered_model_tag(self._name, key, value)

    def set_version_tag(self, version: str, key: str, *, value: str) -> None:
        """See ``RegistryTables``."""
        self._client.set_model_version_tag(self._name, version, key, value)

    def describe(self, text: str, version: str = "") -> None:
        """See ``RegistryTables``."""
        if version:
            self._client.update_model_version(self._name, version, text)
        else:
            self._client.update_registered_model(self._name, text)


def reach(workspace: Workspace) -> None:
    """Have MLflow ready: its database in the state folder of this release, or a server that answers.

    Raises:
        sqlite3.Error: the database is damaged.
        alembic.util.CommandError: it is of a newer release.
        MlflowException: the server gives no answer within seconds, or refuses.
        UserError: it is no MLflow server.
    """
    uri = workspace.mlflow_uri
    if uri in _reached:
        return
    if workspace.owns_mlflow and workspace.mlflow_file.exists():
        _check_readable(workspace.mlflow_file)
    try:
        with impatience():
            MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
    except MlflowException as error:
        if not workspace.owns_mlflow or "database schema" not in str(error):
            raise
        _upgrade(workspace.mlflow_file)
    except Exception as error:  # MLflow's client takes what is no MLflow server for one and stumbles anywhere
        if not uri.startswith(("http://", "https://")):
            raise
        raise UserError(
            f"MLFLOW_TRACKING_URI: what answers there is no MLflow server ({type(error).__name__}); give its URL"
        ) from error
    _reached.add(uri)


def _check_readable(path: Path) -> None:
    """See that the file is a database; MLflow would try again and again."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT name FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        error.add_note(f"in {path}")
        raise


@contextmanager
def impatience() -> Iterator[None]:
    """Have MLflow's client give a server up within seconds, where the user says nothing else."""
    own = {name: value for name, value in _IMPATIENT.items() if name not in os.environ}
    os.environ |= own
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def _upgrade(path: Path) -> None:
    """Bring MLflow's database to this release's schema, in a copy that takes its place when it is whole."""
    with FileLock(path.with_name(f"{path.name}.lock")), whole_file(path) as part:
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(part)) as new:
            old.backup(new)
        upgrade.main([f"sqlite:///{part}"], standalone_mode=False)  # as `mlflow db upgrade` does
    print(f"{path} was of an older release of MLflow; it is upgraded", file=sys.stderr)
