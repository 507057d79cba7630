"""Where a service finds its model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from ontopic.errors import UserError


def model_folder(environment: Mapping[str, str]) -> Path:
    """The folder to load: ``ONTOPIC_MODEL_URI`` fetched from MLflow if it is set, or ``ONTOPIC_MODEL_FOLDER``.

    Args:
        environment: ``MLFLOW_TRACKING_URI`` in it says which server is asked; the URI is such as ``models:/ontopic/7``.

    Raises:
        UserError: MLflow has nothing there.
    """
    uri = environment.get("ONTOPIC_MODEL_URI")
    if not uri:
        return Path(environment["ONTOPIC_MODEL_FOLDER"])
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=tempfile.mkdtemp(prefix="ontopic-model-")))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"MLflow gives no model at {uri!r} ({str(error)[:200]}); check ONTOPIC_MODEL_URI and MLFLOW_TRACKING_URI"
        ) from error
