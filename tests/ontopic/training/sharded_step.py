"""One process's part of a training step on two pairs a process: its loss and gradients, the model's weights shared out.

torchrun --nproc-per-node 2 sharded_step.py MODEL OUT; without a launcher, one process takes all pairs and the whole
weights.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.fsdp import fully_shard
from trl.experimental.orpo import ORPOConfig

from ontopic.models.loading import load
from ontopic.training.orpo import preference_row
from ontopic.training.packed_trainer import PackedORPOTrainer
from ontopic.training.preferences import Preference

QUESTIONS = ("How do I block my card?", "What is an IBAN?", "How long does a transfer take?", "Tell me a joke.")


def main() -> None:
    """Write the mean loss over all pairs and the whole gradients to OUT."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = load(folder, "float32")
    pairs = [
        Preference(
            question=q,
            chosen="Open the app and tap Cards.",
            rejected="I can only help with banking.",
            in_scope=True,
            source="",
            record_id="",
        )
        for q in QUESTIONS
    ]
    trainer = PackedORPOTrainer(
        model=model.model,
        args=ORPOConfig(
            output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to=[], remove_unused_columns=False,
            max_length=256, beta=0.2, gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([preference_row(model, pair, max_rejected_tokens=4) for pair in pairs]),
        processing_class=model.tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"]),
    )  # fmt: skip
    adapted: Any = trainer.model
    trained = [(name, parameter) for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    for seed, (_, parameter) in enumerate(trained):
        parameter.data = 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    rows: Any = trainer.train_dataset
    mine = range(len(rows))
    sharded = "RANK" in os.environ
    if sharded:
        for block in adapted.get_base_model().model.layers:
            fully_shard(block)
        fully_shard(adapted)
        mine = range(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    loss, _ = trainer.get_batch_loss_metrics(adapted, trainer.data_collator([rows[i] for i in mine]))
    loss.backward()
    loss = loss.detach()
    if sharded:
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    gradients = {
        name: parameter.grad.full_tensor() if sharded else parameter.grad
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad
    }
    if not sharded or dist.get_rank() == 0:
        torch.save({"loss": loss, "gradients": gradients}, out)


if __name__ == "__main__":
    main()
