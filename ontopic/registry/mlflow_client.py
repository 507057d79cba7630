"""A registered model in any MLflow: a server, or a database of the user's."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

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
