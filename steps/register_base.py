"""Get the base model and register it, with the versions of earlier releases brought along."""

from __future__ import annotations

from typing import Annotated

from zenml import step

from ontopic.config.model_settings import ModelSettings
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.state.workspace import Workspace
from steps.caching import depends_on_imports


@step(experiment_tracker=True, cache_policy=depends_on_imports(__file__))
def register_base(*, model: ModelSettings, registered_model: str, workspace: Workspace) -> Annotated[str, "base"]:
    """Returns the base model's version."""
    import mlflow

    from ontopic.models import loading as models
    from ontopic.models.chat_template import templated
    from ontopic.training import registering

    folder = models.resolve(model.name, workspace)
    if model.chat_template is not None:
        folder = templated(folder, model.chat_template, workspace=workspace)
    run = mlflow.active_run()
    assert run is not None
    registering.bring_along(registered_model, workspace=workspace)
    version = registering.register_base(
        registered_model,
        folder,
        workspace=workspace,
        run_id=run.info.run_id,
        tags={"ontopic.source": model.name, KIND: OF_BASE},
    )
    mlflow.log_params({"model": model.name, "model_digest": version.digest})
    return version.version
