"""ORPO fine-tuning (Hong et al. 2024, arXiv 2403.07691) of a LoRA adapter with TRL and PEFT."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from pydantic import BaseModel, ConfigDict
from transformers import EarlyStoppingCallback, PrinterCallback
from transformers.trainer_utils import get_last_checkpoint
from trl.experimental.orpo import ORPOConfig

from ontopic.config.training_settings import TrainingSettings
from ontopic.errors import UserError
from ontopic.models.adapter_base import name_base
from ontopic.models.chat_template import chat_prompts
from ontopic.models.control_markers import control_markers, neutralised
from ontopic.models.loading import LanguageModel
from ontopic.progress import progress
from ontopic.state.whole_file import whole_folder
from ontopic.training.callbacks import WHOLE, AveragedWeights, KeepCheckpoint, LogMetrics, Reporter
from ontopic.training.packed_trainer import PackedORPOTrainer
from ontopic.training.preferences import Preference

logger = logging.getLogger(__name__)

Row = dict[str, Any]
_HELD_OUT = 16  # one pair in so many
_MARGIN = "eval_rewards/margins"
# Constant, as it is the mean of the later steps' weights that counts, and not the last ones. Early stopping keeps one
# step's weights, and wants them to settle.
_CONSTANT, _COSINE = "constant_with_warmup", "cosine"


class TrainingResult(BaseModel):
    """What a training run left behind.

    Attributes:
        adapter: folder of the PEFT adapter.
        steps: optimizer steps in all.
        resumed_from: the step it went on from; 0 for a run from the start.
        metrics: the last logged value of each metric.
    """

    model_config = ConfigDict(frozen=True)
    adapter: Path
    steps: int
    resumed_from: int
    metrics: dict[str, float]


def train_orpo(
    base: LanguageModel,
    base_folder: Path,
    *,
    preferences: Sequence[Preference],
    settings: TrainingSettings,
    work: Path,
    log_metrics: LogMetrics | None = None,
    keep_checkpoint: KeepCheckpoint | None = None,
) -> TrainingResult:
    """Train a LoRA adapter on preference pairs; goes on from the last checkpoint in ``work`` where there is one.

    Args:
        base: the model; its weights are changed in place, so load it anew afterwards.
        base_folder: where ``base`` was loaded from; the adapter names it by its digest.
        work: holds the checkpoints and, at the end, ``adapter``. Give each set of inputs a folder of its own.
        log_metrics: called with metrics and the step they belong to: loss, log odds ratio, reward margin,
            learning rate, tokens per second.
        keep_checkpoint: called in the first process once a checkpoint is whole; training waits for it.

    Raises:
        UserError: there are no preferences.
    """
    if not preferences:
        raise UserError(
            "there is nothing to train on: no record of this traffic has a better answer than the one that was given; "
            "ask more questions (traffic.questions), or configure a teacher"
        )
    disable_progress_bars()
    rows = [preference_row(base, pair, max_rejected_tokens=settings.max_rejected_tokens) for pair in preferences]
    config = _config(base, rows, settings=settings, checkpoints=work / "checkpoints")
    with config.main_process_first(local=False):
        checkpoint = _last_checkpoint(work / "checkpoints")
    trainer = _trainer(base, base_folder, rows=rows, settings=settings, config=config)
    reporter = _train(trainer, log_metrics, checkpoint=checkpoint, keep_checkpoint=keep_checkpoint)
    adapter = work / "adapter"
    with whole_folder(adapter) if config.process_index == 0 else nullcontext(work) as part:
        trainer.save_model(str(part))  # under FSDP all processes take part, and the first writes
        if config.process_index == 0:
            name_base(part, base.digest)
    return TrainingResult(
        adapter=adapter, steps=trainer.state.global_step, resumed_from=reporter.resumed_from, metrics=reporter.last
    )


def _held_out(rows: Sequence[Row], settings: TrainingSettings) -> int:
    """How many of the pairs, the first ones, are held out to stop early by."""
    return len(rows) // _HELD_OUT if settings.early_stopping else 0


def _config(base: LanguageModel, rows: Sequence[Row], *, settings: TrainingSettings, checkpoints: Path) -> ORPOConfig:
    """The settings as TRL takes them."""
    held_out = _held_out(rows, settings)
    schedule = _COSINE if held_out else _CONSTANT
    if settings.early_stopping:
        logger.info("early stopping on %d held-out pairs; the learning-rate schedule is %s", held_out, schedule)
    texts = (row["prompt"] + row[answer] for row in rows for answer in ("chosen", "rejected"))
    longest = max(len(base.tokenizer(text)["input_ids"]) for text in texts)
    return ORPOConfig(
        output_dir=str(checkpoints),
        beta=settings.beta,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=base.model.dtype == torch.bfloat16,
        optim=settings.optimizer,
        lr_scheduler_type=schedule,
        warmup_steps=0.05,
        max_length=longest + 2,
        logging_steps=1,
        save_steps=settings.save_steps,
        save_total_limit=2,  # the older one is there while the newer is written
        seed=settings.seed,
        data_seed=settings.seed,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps" if held_out else "no",
        eval_steps=settings.save_steps,
        per_device_eval_batch_size=settings.batch_size,
        load_best_model_at_end=bool(held_out),
        metric_for_best_model=_MARGIN,
        greater_is_better=True,
        fsdp="full_shard auto_wrap" if settings.fully_sharded else None,
        fsdp_config={"fsdp_version": 2, "reshard_after_forward": True} if settings.fully_sharded else None,
    )


def _trainer(
    base: LanguageModel, base_folder: Path, *, rows: Sequence[Row], settings: TrainingSettings, config: ORPOConfig
) -> PackedORPOTrainer:
    """The trainer of an adapter that names ``base_folder`` as its base."""
    dataset, held_out = Dataset.from_list(list(rows)), _held_out(rows, settings)
    trainer = PackedORPOTrainer(
        model=base.model,
        args=config,
        train_dataset=dataset.select(range(held_out, len(dataset))),
        eval_dataset=dataset.select(range(held_out)) if held_out else None,
        processing_class=base.tokenizer,
        peft_config=_lora(base, settings),
        gradient_share=settings.gradient_share,
        callbacks=[EarlyStoppingCallback(settings.early_stopping) if held_out else AveragedWeights()],
    )
    adapted: Any = trainer.model
    adapted.peft_config["default"].base_model_name_or_path = str(base_folder)
    return trainer


def _lora(base: LanguageModel, settings: TrainingSettings) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=_linear_layers(base) if settings.lora_modules == "all-linear" else settings.lora_modules,
        layers_to_transform=list(range(settings.lora_first_block, base.model.config.num_hidden_layers)),
    )


def _train(
    trainer: PackedORPOTrainer,
    log_metrics: LogMetrics | None,
    *,
    checkpoint: str | None,
    keep_checkpoint: KeepCheckpoint | None,
) -> Reporter:
    """Train to the end, from a checkpoint where there is one, with a progress bar in the first process."""
    config: Any = trainer.args
    tokenized: Any = trainer.train_dataset
    pairs_a_step = trainer.pairs_a_step
    tokens_a_pair = sum(len(r["chosen_input_ids"]) + len(r["rejected_input_ids"]) for r in tokenized) / len(tokenized)
    steps_an_epoch = -(-len(tokenized) // pairs_a_step)
    total = config.max_steps if config.max_steps > 0 else int(steps_an_epoch * config.num_train_epochs)
    shown = progress("ORPO", total, unit="steps") if config.process_index == 0 else nullcontext(lambda _: None)
    # Under autocast an adapter's input would be cast to float32 and straight back.
    adapted: Any = trainer.model
    uncast = disable_input_dtype_casting(adapted) if config.bf16 else nullcontext()
    with shown as advance, uncast:
        tokens_a_step = tokens_a_pair * pairs_a_step
        reporter = Reporter(log_metrics, advance, tokens_a_step=tokens_a_step, keep_checkpoint=keep_checkpoint)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(reporter)
        trainer.train(resume_from_checkpoint=checkpoint)
    return reporter


def preference_row(base: LanguageModel, pair: Preference, *, max_rejected_tokens: int) -> Row:
    """The pair as TRL takes it: prompt (in the model's chat format), chosen and rejected, all text.

    The rejected answer is cut ``max_rejected_tokens`` after it departs from the chosen one; the chosen one of a pair of
    beginnings is too, and then has no end ("cut"), lest it teach the model to stop in the middle of a sentence. Control
    markers are made plain, as they are before the model answers.
    """
    markers = control_markers(base.tokenizer)
    answers = ({"content": text} for text in (pair.chosen, pair.rejected))
    kept, other = (message["content"] for message in neutralised(list(answers), markers))
    chosen, rejected = (base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (kept, other))
    shared = len(list(takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False))))
    most = shared + max_rejected_tokens
    cut = pair.beginnings and len(chosen) > most
    prompt = chat_prompts(base.tokenizer, [pair.messages])[0]
    return {
        "prompt": prompt,
        "chosen": str(base.tokenizer.decode(chosen[:most])) if cut else kept,
        "rejected": str(base.tokenizer.decode(rejected[:most])),
        "cut": cut,
    }


def _linear_layers(base: LanguageModel) -> list[str]:
    """Names of all linear layers but the output's; PEFT's ``all-linear`` can't be held to some blocks."""
    output = base.model.get_output_embeddings()
    layers = [n for n, m in base.model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
    return sorted({name.rpartition(".")[2] for name in layers})


def _last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint; what a killed process left half-written is removed."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).exists():
            shutil.rmtree(folder)
    return get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
