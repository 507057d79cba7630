"""A ZenML orchestrator that runs each step in a process of its own, with an empty working folder and home: what a
cluster does, as far as one machine can play it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

from loopback import ROOT
from zenml.entrypoints.step_entrypoint_configuration import StepEntrypointConfiguration
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse, PipelineSnapshotResponse
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor, SubmissionResult
from zenml.stack import Stack

FLAVOR = "subprocess"
MACHINES = "STEP_MACHINES"
"""The environment variable with the folder under which each step gets one of its own."""
PYTHON = "STEP_PYTHON"
"""The environment variable with the interpreter of their processes."""
OTHER_USER = "nobody"
_RUN = "SUBPROCESS_ORCHESTRATOR_RUN_ID"


class SubprocessEntrypoint(StepEntrypointConfiguration):
    """A step's process, as ZenML has it in a container, but that it stays in its own working folder."""

    def prepare_code_environment(self) -> None:
        """In a container: go to /app."""


class SubprocessOrchestratorConfig(BaseOrchestratorConfig):
    """It is on other machines, as far as ZenML knows."""

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def is_local(self) -> bool:
        return False


class SubprocessOrchestrator(BaseOrchestrator):
    """Runs the steps one by one, each to its end."""

    def get_orchestrator_run_id(self) -> str:
        return os.environ[_RUN]

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        return [ExecutionMode.FAIL_FAST]

    def submit_pipeline(
        self,
        snapshot: PipelineSnapshotResponse,
        stack: Stack,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: PipelineRunResponse | None = None,
    ) -> SubmissionResult | None:
        run_id = str(uuid4())
        for name in snapshot.step_configurations:
            arguments = SubprocessEntrypoint.get_entrypoint_arguments(step_name=name, snapshot_id=snapshot.id)
            _run_apart(name, arguments, step_environments[name] | {_RUN: run_id})
        return None


class SubprocessOrchestratorFlavor(BaseOrchestratorFlavor):
    """How ZenML finds the orchestrator."""

    @property
    def name(self) -> str:
        return FLAVOR

    @property
    def config_class(self) -> type[BaseOrchestratorConfig]:
        return SubprocessOrchestratorConfig

    @property
    def implementation_class(self) -> type[BaseOrchestrator]:
        return SubprocessOrchestrator


def _run_apart(step: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Run a step's entrypoint where nothing is that another process left: as another user, where tests run as root."""
    machine = Path(os.environ[MACHINES]) / f"{step}-{uuid4().hex[:8]}"
    folders = [machine / name for name in ("home", "work", "tmp")]
    user = []
    if os.geteuid() == 0:
        user = [shutil.which("runuser") or "runuser", "-u", OTHER_USER, "--", "env", f"HOME={folders[0]}"]
    for folder in folders:
        folder.mkdir(parents=True)
        if user:
            shutil.chown(folder, OTHER_USER)
    own = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folders[0]),
        "TMPDIR": str(folders[2]),
        "PYTHONPATH": os.environ["PYTHONPATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": os.environ["HF_HUB_CACHE"],  # an image has its models
        "OMP_NUM_THREADS": "1",
        **environment,
        "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),  # as an image has them in /app
    }
    command = [*user, os.environ[PYTHON], *SubprocessEntrypoint.get_entrypoint_command()[1:], *arguments]
    with (machine / "log").open("wb") as log:
        done = subprocess.run(command, cwd=folders[1], env=own, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise RuntimeError(f"step {step} ended with {done.returncode}; see {machine / 'log'}")
