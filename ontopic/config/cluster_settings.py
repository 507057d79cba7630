"""The section ``cluster`` of the configuration file: what the steps of a remote ZenML stack run in."""

from __future__ import annotations

from pydantic import Field

from ontopic.config.section import Section


class StepResources(Section):
    """What one step gets of a cluster."""

    gpus: int = Field(0, ge=0)
    """How many GPUs."""
    cpus: float | None = Field(None, gt=0)
    """How many CPU cores; as the cluster has it where none are given."""
    memory: str | None = Field(None, pattern=r"^[0-9]+(KB|KiB|MB|MiB|GB|GiB|TB|TiB|PB|PiB)$")
    """How much memory, such as ``32GB``; as the cluster has it where none is given."""


class ClusterSettings(Section):
    """Where the steps run, on a ZenML stack of which the orchestrator is not ``local``."""

    image: str = Field(min_length=1)
    """The image with OnTopic, its sources in ``/app``; nothing is built, and no source is sent."""
    training: StepResources = StepResources.model_validate({})
    """For the step that trains; ``training.processes`` GPUs."""
    answering: StepResources = StepResources.model_validate({})
    """For each step in which a model answers: traffic, evaluation, preferences."""
    others: StepResources = StepResources.model_validate({})
    """For each other step."""
