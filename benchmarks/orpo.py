"""Seconds a training step of the stock ORPO trainer and of ours, on the same batches in one run.

python benchmarks/orpo.py [--steps N] [--state DIR]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ontopic.labelled_data import load_questions
from ontopic.models import EMBEDDED, load, resolve
from ontopic.orpo_trainer import SharedPromptORPOTrainer
from ontopic.policy import load_policy
from ontopic.preferences import Preference
from ontopic.training import preference_row

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print both trainers' seconds a step, the ratio, and the largest difference in loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    language_model = load(resolve(EMBEDDED, options.state))
    questions = [q for q in load_questions(policy.questions, split="train") if q.reference][: 8 * options.steps]
    pairs = [Preference(q.question, str(q.reference), policy.refusal, True, "reference", "") for q in questions]
    with tempfile.TemporaryDirectory() as folder:
        config = ORPOConfig(
            output_dir=folder, bf16=False, gradient_checkpointing=False, remove_unused_columns=False, report_to=[],
            max_length=512, use_cpu=True, beta=1.0,
        )  # fmt: skip
        trainer = SharedPromptORPOTrainer(
            model=language_model.model,
            args=config,
            train_dataset=Dataset.from_list([preference_row(language_model, pair, 24) for pair in pairs]),
            processing_class=language_model.tokenizer,
            peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear"),
        )
        trainer.stock_likelihood = True  # the same loss on both sides
        seconds: dict[str, float] = {"stock": 0.0, "ours": 0.0}
        losses: dict[str, float] = {}
        difference = 0.0
        for step in range(options.steps):
            batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8 * step, 8 * step + 8)])
            for name, kind in (("stock", ORPOTrainer), ("ours", SharedPromptORPOTrainer)):
                trainer.__class__ = kind
                trainer.model.zero_grad()
                start = time.perf_counter()
                loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
                loss.backward()
                # The first step of each also warms up.
                seconds[name] += (time.perf_counter() - start) * (step > 0)
                losses[name] = loss.item()
            difference = max(difference, abs(losses["stock"] - losses["ours"]))
    each = {name: total / (options.steps - 1) for name, total in seconds.items()}
    ratio = each["stock"] / each["ours"]
    print(f"stock {each['stock']:.2f} s a step, ours {each['ours']:.2f} s a step: {ratio:.2f} times as fast")
    print(f"largest difference in loss {difference:.1e}; 8 pairs a step, {options.steps - 1} timed steps")


if __name__ == "__main__":
    main()
