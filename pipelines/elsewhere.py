"""Running steps on the machines of a remote ZenML stack: what they are given, and what they run in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zenml import save_artifact
from zenml.client import Client
from zenml.config import DockerSettings, ResourceSettings
from zenml.models import ArtifactVersionResponse

from ontopic.config.cluster_settings import ClusterSettings, StepResources
from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.state.workspace import ENVIRONMENT, Workspace
from steps.elsewhere import BroughtAlong, BroughtAlongMaterializer

_IN_IMAGE = "/app"
"""Where the image has OnTopic's sources: ZenML has steps run there."""
_TRAINS = ("train_challenger",)
_ANSWERS = (
    "collect_traffic",
    "make_preferences",
    "open_look",
    "evaluate_champion",
    "evaluate_challenger",
    "open_sealed",
)


def runs_elsewhere() -> bool:
    """Whether the active stack runs its steps outside of the process that starts them."""
    return Client().active_stack.orchestrator.flavor != "local"


def brought_along(
    workspace: Workspace, policy: Policy, *, prompts: Path, training: TrainingSettings | None = None
) -> Workspace | ArtifactVersionResponse:
    """What a pipeline gives its steps as their workspace: this one where they run here, else an artifact with which
    each makes one of its own.

    Args:
        prompts: the folder of the judge's.
        training: has the preference sets.
    """
    if not runs_elsewhere():
        return workspace
    sources = [policy.questions, policy.records, *_sets(training)]
    files = [path for path in (*map(Path, sources), *sorted(prompts.glob("*.txt"))) if path.is_file()]
    data = BroughtAlong(mlflow_uri=workspace.mlflow_uri, files=files)
    return save_artifact(data, "brought_along", materializer=BroughtAlongMaterializer, extract_metadata=False)


def runs_in(cluster: ClusterSettings) -> dict[str, Any]:
    """Options of a pipeline: each step's image and resources, as ZenML has them.

    The image has all that a step needs: nothing is built, and no source is sent along. A step that a pipeline lacks is
    passed over.
    """
    image = DockerSettings(
        parent_image=cluster.image,
        skip_build=True,
        allow_including_files_in_images=False,
        allow_download_from_code_repository=False,
        allow_download_from_artifact_store=False,
    )
    wanted = {**dict.fromkeys(_ANSWERS, cluster.answering), **dict.fromkeys(_TRAINS, cluster.training)}
    return {
        "settings": {"docker": image, "resources": _resources(cluster.others)},
        "steps": {name: {"settings": {"resources": _resources(each)}} for name, each in wanted.items()},
        # ZenML looks for the sources that the cache goes by before it imports a step, which would say where they are.
        "environment": {**ENVIRONMENT, "ZENML_CUSTOM_SOURCE_ROOT": _IN_IMAGE},
    }


def _resources(wanted: StepResources) -> ResourceSettings:
    return ResourceSettings(cpu_count=wanted.cpus, gpu_count=wanted.gpus or None, memory=wanted.memory)


def _sets(training: TrainingSettings | None) -> list[str]:
    return [each.source for each in training.preference_sets] if training else []
