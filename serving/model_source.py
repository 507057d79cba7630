"""Where a service finds its model."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ontopic.errors import UserError

_BY_ALIAS = re.compile(r"models:/([^/@]+)@(.+)")
_BY_VERSION = re.compile(r"models:/[^/@]+/(\d+)")


def found_model(environment: Mapping[str, str]) -> tuple[Path, str]:
    """The folder to load and the version that is in it: those of ``ONTOPIC_MODEL_URI``, fetched from MLflow, if it is
    set; else ``ONTOPIC_MODEL_FOLDER`` and ``ONTOPIC_MODEL_VERSION``.

    Args:
        environment: ``MLFLOW_TRACKING_URI`` in it says which server is asked; the URI is such as
            ``models:/ontopic@champion`` or ``models:/ontopic/7``. One that names no version, such as a run's, has that
            of ``ONTOPIC_MODEL_VERSION``.

    Raises:
        UserError: MLflow has nothing there.
    """
    uri = environment.get("ONTOPIC_MODEL_URI")
    if not uri:
        return Path(environment["ONTOPIC_MODEL_FOLDER"]), environment["ONTOPIC_MODEL_VERSION"]
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if named := _BY_ALIAS.fullmatch(uri):  # asked once: a promotion meanwhile is followed later
            uri = f"models:/{named[1]}/{mlflow.MlflowClient().get_model_version_by_alias(named[1], named[2]).version}"
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp(prefix="ontopic-model-")))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"MLflow gives no model at {uri!r} ({str(error)[:200]}); check ONTOPIC_MODEL_URI and MLFLOW_TRACKING_URI"
        ) from error
    numbered = _BY_VERSION.fullmatch(uri)
    return folder, numbered[1] if numbered else environment["ONTOPIC_MODEL_VERSION"]
