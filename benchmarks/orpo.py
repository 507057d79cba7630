"""Tokens per second and peak memory of the stock ORPO trainer and of ours, on the same pairs in one run.

python benchmarks/orpo.py [--models embedded gemma-2b] [--precisions float32 bfloat16 nf4] [--steps N] [--batch N]
    [--layers N] [--state DIR]

The two sides take turns on the same batches, with the default configuration's LoRA and answer lengths; the loss of both
is TRL's. Then each trains alone, in a process of its own, for its peak memory. ``gemma-2b`` is a model of that shape
with random weights, ``--layers`` of its 18 blocks. The rate is also given as a share of what a large matrix product
reaches on the same device. On a CUDA GPU: ``--models embedded gemma-2b --precisions bfloat16 nf4``.
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
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer, GemmaConfig, GemmaForCausalLM
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from ontopic.config.model_settings import Precision
from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, load, resolve
from ontopic.state.workspace import open_workspace
from ontopic.training.orpo import preference_row
from ontopic.training.packed_trainer import PackedORPOTrainer
from ontopic.training.preferences import Preference

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"stock": ORPOTrainer, "ours": PackedORPOTrainer}
GEMMA = "gemma-2b"


def write_gemma(folder: Path, tokenizer: Path, layers: int) -> None:
    """A model of gemma-2b's shape (arXiv 2403.08295, table 1) with random weights."""
    config = GemmaConfig(
        vocab_size=256_000, hidden_size=2048, intermediate_size=16_384, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=1, head_dim=256, tie_word_embeddings=True,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        GemmaForCausalLM(config).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def made_trainer(model: Path, precision: Precision, pairs: int, folder: str) -> PackedORPOTrainer:
    """A trainer of ``pairs`` pairs, half of them in scope, as the loop makes them."""
    policy, settings = load_policy(ROOT / "configs/policies/banking.yaml"), load_settings(ROOT / "configs/local.yaml")
    language_model, training = load(model, precision), settings.training
    rows = load_questions(policy.questions, split="train")
    inside = [q for q in rows if q.in_scope and q.reference][: pairs // 2]
    outside = [q for q in rows if not q.in_scope][: pairs - len(inside)]
    answer = (
        "Sure! Here is what I know about that, step by step: first of all you should think of what you really need."
    )
    given = [
        Preference(
            question=q.question,
            chosen=str(q.reference),
            rejected=policy.refusal,
            in_scope=True,
            source="reference",
            record_id="",
        )
        for q in inside
    ]
    given += [
        Preference(
            question=q.question, chosen=policy.refusal, rejected=answer, in_scope=False, source="policy", record_id=""
        )
        for q in outside
    ]
    given = [pair for both in zip(given[: len(inside)], given[len(inside) :], strict=False) for pair in both]
    config = ORPOConfig(
        output_dir=folder, bf16=precision in ("bfloat16", "nf4"), gradient_checkpointing=False,
        remove_unused_columns=False, report_to=[], max_length=512, use_cpu=not torch.cuda.is_available(),
        beta=training.beta,
    )  # fmt: skip
    trainer = PackedORPOTrainer(
        model=language_model.model,
        args=config,
        train_dataset=Dataset.from_list(
            [preference_row(language_model, pair, max_rejected_tokens=training.max_rejected_tokens) for pair in given]
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
    """Seconds and loss of one step, forward and backward pass."""
    trainer.__class__ = SIDES[side]
    trainer.model.zero_grad()
    start = time.perf_counter()
    with trainer.accelerator.autocast():
        loss, _ = trainer.get_batch_loss_metrics(trainer.model, batch)
    loss.backward()
    value = loss.item()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, value


def matrix_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def peak(trainer: PackedORPOTrainer, side: str, batches: list[dict[str, torch.Tensor]]) -> tuple[int, int]:
    """Bytes held before the first step, and at the peak."""
    cuda = torch.cuda.is_available()
    loaded = torch.cuda.memory_allocated() if cuda else psutil.Process().memory_info().rss
    for batch in batches:
        step(trainer, side, batch)
    if cuda:
        return loaded, torch.cuda.max_memory_allocated()
    # Not getrusage's: that is the parent's peak where it was higher.
    (highest,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return loaded, int(highest) * 1024


def compare(trainer: PackedORPOTrainer, batches: list[dict[str, torch.Tensor]]) -> None:
    """Print both trainers' rates, the ratio and the largest difference in loss."""
    tokens = sum(int(batch[f"{name}_attention_mask"].sum()) for batch in batches for name in ("chosen", "rejected"))
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    work = {}
    difference = 0.0
    for side in SIDES:
        with FlopCounterMode(display=False) as counter:
            step(trainer, side, batches[0])  # warms up
        work[side] = counter.get_total_flops()
    for number, batch in enumerate(batches):
        losses = []
        for side in sorted(SIDES, reverse=bool(number % 2)):
            took, loss = step(trainer, side, batch)
            seconds[side].append(took)
            losses.append(loss)
        difference = max(difference, abs(losses[0] - losses[1]))
    ratios = sorted(stock / ours for stock, ours in zip(seconds["stock"], seconds["ours"], strict=True))
    dtype = next(p.dtype for p in trainer.model.parameters() if p.is_floating_point() and not p.requires_grad)
    most = matrix_rate(dtype, trainer.accelerator.device)
    for side, all_of in seconds.items():
        share = work[side] / seconds[side][0] / most
        print(
            f"{side}: {tokens / sum(all_of):.0f} tokens/s, {statistics.median(all_of):.2f} s a step (median); first "
            f"batch {work[side] / 1e12:.2f} TFLOP at {share:.0%} of a large matrix product's {most / 1e12:.2f} TFLOP/s"
        )
    print(
        f"ours is {sum(seconds['stock']) / sum(seconds['ours']):.2f} times as fast (single steps: {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}); largest difference in loss {difference:.1e}; "
        f"{len(batches)} steps of {len(batches[0]['chosen_input_ids'])} pairs",
        flush=True,
    )


def compare_peaks(arguments: list[str]) -> None:
    """Print each side's peak, of four steps in a process of its own, and the ratio."""
    peaks = {}
    for side in SIDES:
        command = [sys.executable, __file__, *arguments, "--steps", "4", "--alone", side]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=own)
        loaded, peaks[side] = (int(part) / 2**20 for part in done.stdout.split()[-2:])
        print(f"{side}: {peaks[side]:.0f} MiB at its peak, {peaks[side] - loaded:.0f} of them for the steps")
    print(f"ours needs {peaks['ours'] / peaks['stock']:.2f} of the memory", flush=True)


def main() -> None:
    """Compare both trainers on each model in each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[EMBEDDED, GEMMA], default=[EMBEDDED])
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16", "nf4"], default=["float32"])
    parser.add_argument("--layers", type=int, default=18, help=f"blocks of {GEMMA}")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8, help="pairs a step")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--alone", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    disable_progress_bars()
    embedded = resolve(EMBEDDED, open_workspace(options.state))
    with tempfile.TemporaryDirectory() as folder:
        folders = {EMBEDDED: embedded, GEMMA: options.folder or Path(folder) / GEMMA}
        if GEMMA in options.models and not options.folder:
            write_gemma(folders[GEMMA], embedded, options.layers)
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        places = ["--state", str(options.state), "--folder", str(folders[GEMMA])]
        for name in options.models:
            for precision in options.precisions:
                trainer = made_trainer(folders[name], precision, options.batch * options.steps, folder)
                pairs = [trainer.train_dataset[i] for i in range(options.batch * options.steps)]
                batches = [
                    trainer.data_collator(pairs[first : first + options.batch])
                    for first in range(0, len(pairs), options.batch)
                ]
                if options.alone:
                    print(*peak(trainer, options.alone, batches))
                    return
                print(f"{name} in {precision} on {device}")
                compare(trainer, batches)
                del trainer
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                compare_peaks(["--models", name, "--precisions", precision, "--batch", str(options.batch), *places])


if __name__ == "__main__":
    main()
