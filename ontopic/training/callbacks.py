"""What happens beside ORPO's steps: weights are averaged, metrics passed on, whole checkpoints marked."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ontopic.models.adapter_base import CONFIG, name_base
from ontopic.progress import Advance

LogMetrics = Callable[[dict[str, float], int], object]
KeepCheckpoint = Callable[[Path], object]
"""Called with the folder of a whole checkpoint."""
WHOLE = "whole"
"""The name of an empty file that comes last into a checkpoint's folder: Transformers writes it file by file."""

_AVERAGED_FROM = 0.5  # of all steps


class AveragedWeights(TrainerCallback):
    """Leaves the mean of the trained weights over the later half of the steps (Izmailov et al. 2018, arXiv 1803.05407).

    It varies less from seed to seed than the last step's, and keeps more of what the model knew.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._weights = torch.nn.ParameterList([p for p in model.parameters() if p.requires_grad])
        self._mean = AveragedModel(self._weights)
        if state.global_step:
            self._mean.load_state_dict(torch.load(self._path(args, state), weights_only=True))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step > _AVERAGED_FROM * state.max_steps:
            self._mean.update_parameters(self._weights)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        torch.save(self._mean.state_dict(), self._path(args, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._weights.load_state_dict(self._mean.module.state_dict())

    @staticmethod
    def _path(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / f"average-{args.process_index}.pt"


class Reporter(TrainerCallback):
    """Passes the trainer's logs on, with the rate in tokens per second, moves the progress bar, marks checkpoints."""

    def __init__(
        self,
        log_metrics: LogMetrics | None,
        advance: Advance,
        *,
        tokens_a_step: float,
        keep_checkpoint: KeepCheckpoint | None = None,
    ) -> None:
        self.log_metrics, self.advance, self.tokens_a_step = log_metrics, advance, tokens_a_step
        self.keep_checkpoint = keep_checkpoint
        self.resumed_from = 0
        self.last: dict[str, float] = {}
        self._step_began = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.resumed_from = state.global_step
        self.advance(state.global_step)
        self._step_began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.advance(1)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        args.distributed_state.wait_for_everyone()  # each process writes a part of it
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            if (checkpoint / CONFIG).is_file():
                name_base(checkpoint, None)
            (checkpoint / WHOLE).touch()
            if self.keep_checkpoint:
                self.keep_checkpoint(checkpoint)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        now = time.monotonic()
        metrics = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in metrics:
            metrics["tokens_per_second"] = self.tokens_a_step / max(now - self._step_began, 1e-9)
            self._step_began = now
            self.last.update(metrics)
        if self.log_metrics:
            self.log_metrics(metrics, state.global_step)
