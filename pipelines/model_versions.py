"""ZenML's model control plane: a model a policy, whose versions are those of MLflow's registry under the same names."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ontopic.errors import UserError
from ontopic.registry.promotions import BASE, CHALLENGER, ModelRegistry, open_registry
from ontopic.registry.versions import BASE_VERSION, DIGEST
from ontopic.state.workspace import Workspace

# What a step returns that is a version's number, as its step's annotation calls it.
_NUMBERS = (CHALLENGER, BASE)
# What tells of a version, and is linked to it.
_ABOUT = ("decision", "monitored", "judge_cards")


def link_versions(run: Any, name: str, *, workspace: Workspace, version: str = "") -> None:
    """Have each version of a registered model among ZenML's too, ``v2`` for version 2, with its place in MLflow; the
    champion is in ``production``, the challenger in ``staging``. The run is linked to the version that it is of, with
    what it returned of it.

    Args:
        run: ``PipelineRunResponse``, finished.
        name: of the registered model.
        version: that the run is of, where it makes none.
    """
    registry = open_registry(workspace, name)
    known = _models_of(registry)
    _follow_aliases(registry, known)
    _link(run, known, of=version)


def _models_of(registry: ModelRegistry) -> dict[str, Any]:
    """ZenML's versions (``ModelVersionResponse``) by the registry's; what is not there yet is made."""
    from zenml.client import Client
    from zenml.enums import MetadataResourceTypes
    from zenml.metadata.metadata_types import MetadataType
    from zenml.models import RunMetadataResource

    client = Client()
    if not client.list_models(name=registry.name).total:
        client.create_model(registry.name, description="The versions of MLflow's registered model of this name.")
    there = {each.name: each for each in client.list_model_versions(model=registry.name, size=1000).items}
    known = {}
    for version, tags in registry.tagged().items():
        made = there.get(f"v{version}")
        if made is None:
            made = client.create_model_version(registry.name, name=f"v{version}")
            of = RunMetadataResource(id=made.id, type=MetadataResourceTypes.MODEL_VERSION)
            known_of = {"sha256": tags.get(DIGEST, ""), "trained_from": tags.get(BASE_VERSION, "")}
            said: dict[str, MetadataType] = {"mlflow": f"models:/{registry.name}/{version}"}
            said |= {key: each for key, each in known_of.items() if each}
            client.create_run_metadata(said, resources=[of])
        known[version] = made
    return known


def _follow_aliases(registry: ModelRegistry, known: dict[str, Any]) -> None:
    """Stages as the aliases are now: one that was moved between two runs is followed after the second."""
    from zenml.client import Client
    from zenml.enums import ModelStages

    stages = {each.version: ModelStages.ARCHIVED for each in registry.promotions()}
    with suppress(UserError):  # there is no challenger
        stages[registry.version(CHALLENGER)] = ModelStages.STAGING
    stages[registry.champion()] = ModelStages.PRODUCTION
    # Who leaves a stage first, as ZenML lets one version alone be in it.
    for version, stage in sorted(stages.items(), key=lambda each: each[1] != ModelStages.ARCHIVED):
        model = known.get(version)
        if model is not None and model.stage != stage:
            Client().update_model_version(model.model.id, model.id, stage=stage, force=True)


def _link(run: Any, known: dict[str, Any], *, of: str) -> None:
    from zenml.client import Client
    from zenml.models import ModelVersionArtifactRequest, ModelVersionPipelineRunRequest

    outputs = {name: made for step in run.steps.values() for name, (made, *_) in step.outputs.items()}
    numbers = [outputs[name].load() for name in _NUMBERS if name in outputs]
    model = known.get(numbers[0] if numbers else of)
    if model is None:
        return
    store = Client().zen_store
    store.create_model_version_pipeline_run_link(
        ModelVersionPipelineRunRequest(model_version=model.id, pipeline_run=run.id)
    )
    for name in _ABOUT:
        if name in outputs:
            store.create_model_version_artifact_link(
                ModelVersionArtifactRequest(model_version=model.id, artifact_version=outputs[name].id)
            )
