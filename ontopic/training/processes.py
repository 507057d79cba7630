"""ORPO in several processes, a GPU each: Accelerate's DDP, or FSDP for a model that one GPU cannot hold.

``train_in_processes`` launches this module under ``torchrun``; each process trains on its share of every batch. With
several nodes, each machine runs the line that it prints.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import joblib
import torch
from pydantic import BaseModel

from ontopic.config.model_settings import Precision
from ontopic.config.training_settings import TrainingSettings
from ontopic.errors import UserError
from ontopic.models.loading import load
from ontopic.training.callbacks import KeepCheckpoint, LogMetrics
from ontopic.training.orpo import TrainingResult, train_orpo
from ontopic.training.preferences import Preference

_LOGGED, _SAVED = "metrics ", "checkpoint "
_YIELDS = 10  # how much nicer a training is that was told its threads


class _Job(BaseModel):
    """What each process works on, as a file."""

    base_folder: Path
    precision: Precision
    preferences: list[Preference]
    settings: TrainingSettings
    work: Path


def train_in_processes(
    base_folder: Path,
    precision: Precision,
    *,
    preferences: Sequence[Preference],
    settings: TrainingSettings,
    work: Path,
    log_metrics: LogMetrics | None = None,
    keep_checkpoint: KeepCheckpoint | None = None,
) -> TrainingResult:
    """As ``orpo.train_orpo``, in ``settings.processes`` processes on this machine, and as many on each other node.

    With ``settings.threads`` they have a low priority, and their threads sleep while they wait for one another, lest
    they hold up a service's on the same cores by spinning.

    Raises:
        UserError: as ``check_processes``.
        subprocess.CalledProcessError: a process failed; what it said stands on standard error.
    """
    check_processes(settings)
    with tempfile.TemporaryDirectory(prefix="job-", dir=_where_all_see_it(work, settings)) as folder:
        job = Path(folder) / "job.json"
        job.write_text(
            _Job(
                base_folder=base_folder,
                precision=precision,
                preferences=list(preferences),
                settings=settings,
                work=work,
            ).model_dump_json()
        )
        command = [sys.executable, *node_arguments(settings, job, rank=0)]
        if settings.nodes > 1:
            others = shlex.join(["python", *node_arguments(settings, job, rank=1)])
            print(f"On each other machine, with its own --node-rank up to {settings.nodes - 1}: {others}", flush=True)
        threads = max(1, joblib.cpu_count() // settings.processes)
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        if settings.threads:
            environment |= {"OMP_NUM_THREADS": str(settings.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            if settings.threads:  # what it starts inherits it
                os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _YIELDS)
            try:
                result = _followed(process.stdout or (), log_metrics, keep_checkpoint=keep_checkpoint)
            except BaseException:  # Ctrl-C in a terminal reaches the workers, SIGTERM does not
                process.terminate()  # at which torchrun ends them
                process.wait()
                raise
        if process.returncode or result is None:
            raise subprocess.CalledProcessError(process.returncode, command)
    return result


def _followed(
    lines: Iterable[str], log_metrics: LogMetrics | None, *, keep_checkpoint: KeepCheckpoint | None
) -> TrainingResult | None:
    """Pass on what the first process says; the result, where it came to one."""
    result: TrainingResult | None = None
    for line in lines:
        if line.startswith(_SAVED) and keep_checkpoint:
            keep_checkpoint(Path(json.loads(line.removeprefix(_SAVED))))
        if not line.startswith(_LOGGED):
            continue
        metrics, step = json.loads(line.removeprefix(_LOGGED))
        if step is None:
            result = TrainingResult.model_validate(metrics)
        elif log_metrics:
            log_metrics(metrics, step)
    return result


def node_arguments(settings: TrainingSettings, job: Path, *, rank: int) -> list[str]:
    """What one machine starts Python with, to train with the others: PyTorch's launcher and this module.

    Args:
        job: the file that ``train_in_processes`` writes.
        rank: of the machine; the one that starts the training is 0.
    """
    meeting = ["--standalone"]
    if settings.nodes > 1:
        meeting = ["--nnodes", str(settings.nodes), "--node-rank", str(rank)]
        meeting += ["--rdzv-backend", "static", "--rdzv-endpoint", str(settings.rendezvous)]
    launcher = ["-m", "torch.distributed.run", *meeting, "--nproc-per-node", str(settings.processes)]
    return [*launcher, "-m", "ontopic.training.processes", str(job)]


def _where_all_see_it(work: Path, settings: TrainingSettings) -> Path | None:
    """The folder of the job: among the checkpoints where other machines read it, else a temporary one."""
    if settings.nodes == 1:
        return None
    work.mkdir(parents=True, exist_ok=True)
    return work


def check_processes(settings: TrainingSettings) -> None:
    """Make sure that this machine can train in so many processes.

    Raises:
        UserError: there are fewer GPUs than processes, on a machine that has any, or none to share weights out among.
    """
    if 0 < torch.cuda.device_count() < settings.processes:
        raise UserError(
            f"training.processes is {settings.processes} and this machine has {torch.cuda.device_count()} GPUs; "
            "set it to that at most"
        )
    if settings.fully_sharded and not torch.cuda.is_available():
        raise UserError(
            "training.fully_sharded needs GPUs, as Accelerate has FSDP for no CPU, and this machine shows none; "
            "leave it out, and each process holds the whole model (DDP)"
        )


def main() -> None:
    """One process's part: train, and, as the first of them, print metrics and the result for the launcher."""
    job = _Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    first = os.environ["RANK"] == "0"

    def say(metrics: object, step: int | None) -> None:
        print(f"{_LOGGED}{json.dumps([metrics, step])}", flush=True)

    result = train_orpo(
        load(job.base_folder, job.precision),
        job.base_folder,
        preferences=job.preferences,
        settings=job.settings,
        work=job.work,
        log_metrics=say if first else None,
        keep_checkpoint=lambda folder: print(f"{_SAVED}{json.dumps(str(folder))}", flush=True),
    )
    if first:
        say(result.model_dump(mode="json"), None)


if __name__ == "__main__":
    main()
