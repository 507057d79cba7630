"""Tokens per second and peak memory of the stock ORPO trainer and of ours, on the same pairs in one run.

python benchmarks/orpo.py [--steps N] [--batch N] [--state DIR]

The two sides take turns on the same batches, with the default configuration's model, LoRA and answer lengths; the loss
of both is TRL's. Then each trains alone, in a process of its own, for its peak memory.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ontopic.labelled_data import load_questions
from ontopic.models import EMBEDDED, load, resolve
from ontopic.orpo_trainer import PackedORPOTrainer
from ontopic.policy import load_policy
from ontopic.preferences import Preference
from ontopic.settings import load_settings
from ontopic.training import preference_row

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"stock": ORPOTrainer, "ours": PackedORPOTrainer}


def made_trainer(state: Path, pairs: int, folder: str) -> PackedORPOTrainer:
    """A trainer of ``pairs`` pairs, half of them in scope, as the loop makes them."""
    policy, settings = load_policy(ROOT / "configs/policies/banking.yaml"), load_settings(ROOT / "configs/local.yaml")
    language_model, training = load(resolve(EMBEDDED, state), "float32"), settings.training
    rows = load_questions(policy.questions, split="train")
    inside = [q for q in rows if q.in_scope and q.reference][: pairs // 2]
    outside = [q for q in rows if not q.in_scope][: pairs - len(inside)]
    answer = (
        "Sure! Here is what I know about that, step by step: first of all you should think of what you really need."
    )
    given = [Preference(q.question, str(q.reference), policy.refusal, True, "reference", "") for q in inside]
    given += [Preference(q.question, policy.refusal, answer, False, "policy", "") for q in outside]
    given = [pair for both in zip(given[: len(inside)], given[len(inside) :], strict=False) for pair in both]
    config = ORPOConfig(
        output_dir=folder, bf16=False, gradient_checkpointing=False, remove_unused_columns=False, report_to=[],
        max_length=512, use_cpu=True, beta=training.beta,
    )  # fmt: skip
    trainer = PackedORPOTrainer(
        model=language_model.model,
        args=config,
        train_dataset=Dataset.from_list(
            [preference_row(language_model, pair, training.max_rejected_tokens) for pair in given]
        ),
        processing_class=language_model.tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=training.lora_rank,
            lora_alpha=training.lora_alpha,
            target_modules=training.lora_modules,
        ),
    )
    trainer.stock_likelihood = True  # the same loss on both sides
    return trainer


def step(trainer: PackedORPOTrainer, side: str, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Seconds and loss of one step, forth and back."""
    trainer.__class__ = SIDES[side]
    trainer.model.zero_grad()
    start = time.perf_counter()
    loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def main() -> None:
    """Print both trainers' rates, the ratio, the largest difference in loss, and both peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--alone", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        trainer = made_trainer(options.state, options.batch * options.steps, folder)
        batches = [
            trainer.data_collator([trainer.train_dataset[i] for i in range(first, first + options.batch)])
            for first in range(0, options.batch * options.steps, options.batch)
        ]
        if options.alone:
            loaded = psutil.Process().memory_info().rss
            for batch in batches:
                step(trainer, options.alone, batch)
            # Not getrusage's: that is the parent's peak where it was higher.
            (peak,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
            print(loaded, int(peak) * 1024)
            return
        tokens = sum(int(batch[f"{name}_attention_mask"].sum()) for batch in batches for name in ("chosen", "rejected"))
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        difference = 0.0
        for side in SIDES:
            step(trainer, side, batches[0])  # warms up
        for number, batch in enumerate(batches):
            losses = []
            for side in sorted(SIDES, reverse=bool(number % 2)):
                took, loss = step(trainer, side, batch)
                seconds[side].append(took)
                losses.append(loss)
            difference = max(difference, abs(losses[0] - losses[1]))
    ratios = sorted(stock / ours for stock, ours in zip(seconds["stock"], seconds["ours"], strict=True))
    for side, all_of in seconds.items():
        print(f"{side}: {tokens / sum(all_of):.0f} tokens/s, {statistics.median(all_of):.2f} s a step (median)")
    print(
        f"ours is {sum(seconds['stock']) / sum(seconds['ours']):.2f} times as fast (single steps: {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}); largest difference in loss {difference:.1e}; "
        f"{options.steps} steps of {options.batch} pairs"
    )
    peaks = {}
    for side in SIDES:
        command = [sys.executable, __file__, "--steps", "4", "--batch", str(options.batch), "--state", options.state]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, "--alone", side], check=True, capture_output=True, text=True, env=own)
        loaded, peaks[side] = (int(part) / 2**20 for part in done.stdout.split()[-2:])
        print(f"{side}: {peaks[side]:.0f} MiB at its peak, {peaks[side] - loaded:.0f} of them for the steps")
    print(f"ours needs {peaks['ours'] / peaks['stock']:.2f} of the memory")


if __name__ == "__main__":
    main()
