"""Tokens per second and peak memory of the stock ORPO trainer and of ours, on the same pairs in one run.

python benchmarks/orpo.py [--models embedded gemma-2b] [--precisions float32 bfloat16 nf4] [--steps N] [--batch N]
    [--share 0.8] [--layers N] [--state DIR]

The sides take turns on the same batches, with the default configuration's LoRA, answer lengths and beginnings; the loss
of all is TRL's. ``selective`` is ours with a backward pass of some pairs only, ``training.gradient_share`` being
``--share``; it leaves out the fewer of them the less a model has learned, and here it has learned nothing. Then each
side trains alone, in a process of its own, for its peak memory. ``gemma-2b`` is a model of that shape with random
weights, ``--layers`` of its 18 blocks. The rate is also given as a share of what a large matrix product reaches on the
same device. On a CUDA GPU: ``--models embedded gemma-2b --precisions bfloat16 nf4``.
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
from functools import partial
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
SIDES = ("stock", "ours", "selective")
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


def made_trainer(model: Path, precision: Precision, pairs: int, *, folder: str, side: str, share: float) -> ORPOTrainer:
    """A trainer of ``pairs`` pairs, half of them in scope, as the loop makes them of labelled questions."""
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
            beginnings=number % 4 > 0,
        )
        for number, q in enumerate(inside)
    ]
    given += [
        Preference(
            question=q.question,
            chosen=policy.refusal,
            rejected=answer,
            in_scope=False,
            source="policy",
            record_id="",
            beginnings=True,
        )
        for q in outside
    ]
    given = [pair for both in zip(given[: len(inside)], given[len(inside) :], strict=False) for pair in both]
    config = ORPOConfig(
        output_dir=folder, bf16=precision in ("bfloat16", "nf4"), gradient_checkpointing=False,
        remove_unused_columns=False, report_to=[], max_length=512, use_cpu=not torch.cuda.is_available(),
        beta=training.beta,
    )  # fmt: skip
    kind = ORPOTrainer if side == "stock" else partial(PackedORPOTrainer, gradient_share=share)
    trainer = kind(
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
    trainer.stock_likelihood = True  # the same loss on all sides
    return trainer


def batches_of(trainer: ORPOTrainer, size: int) -> list[dict[str, torch.Tensor]]:
    """The trainer's pairs, some at a time."""
    pairs = [trainer.train_dataset[i] for i in range(len(trainer.train_dataset))]
    return [trainer.data_collator(pairs[first : first + size]) for first in range(0, len(pairs), size)]


def step(trainer: ORPOTrainer, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Seconds and loss of one step, forward and backward pass."""
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


def peak(trainer: ORPOTrainer, batches: list[dict[str, torch.Tensor]]) -> tuple[int, int]:
    """Bytes held before the first step, and at the peak."""
    cuda = torch.cuda.is_available()
    loaded = torch.cuda.memory_allocated() if cuda else psutil.Process().memory_info().rss
    for batch in batches:
        step(trainer, batch)
    if cuda:
        return loaded, torch.cuda.max_memory_allocated()
    # Not getrusage's: that is the parent's peak where it was higher.
    (highest,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return loaded, int(highest) * 1024


def compare(trainers: dict[str, ORPOTrainer], batches: list[dict[str, torch.Tensor]]) -> None:
    """Print all sides' rates, the ratios and the largest difference in loss."""
    tokens = sum(int(batch[f"{name}_attention_mask"].sum()) for batch in batches for name in ("chosen", "rejected"))
    seconds: dict[str, list[float]] = {side: [] for side in trainers}
    work, losses = {}, {side: [] for side in trainers}
    for side, trainer in trainers.items():
        with FlopCounterMode(display=False) as counter:
            step(trainer, batches[0])  # warms up
        work[side] = counter.get_total_flops()
    for number, batch in enumerate(batches):
        for side in sorted(trainers, reverse=bool(number % 2)):
            took, loss = step(trainers[side], batch)
            seconds[side].append(took)
            losses[side].append(loss)
    parameters = trainers["stock"].model.parameters()
    dtype = next(p.dtype for p in parameters if p.is_floating_point() and not p.requires_grad)
    most = matrix_rate(dtype, trainers["stock"].accelerator.device)
    for side, all_of in seconds.items():
        share = work[side] / seconds[side][0] / most
        print(
            f"{side}: {tokens / sum(all_of):.0f} tokens/s, {statistics.median(all_of):.2f} s a step (median); first "
            f"batch {work[side] / 1e12:.2f} TFLOP at {share:.0%} of a large matrix product's {most / 1e12:.2f} TFLOP/s"
        )
    for side in list(trainers)[1:]:
        ratios = sorted(stock / other for stock, other in zip(seconds["stock"], seconds[side], strict=True))
        difference = max(abs(one - other) for one, other in zip(losses["stock"], losses[side], strict=True))
        print(
            f"{side} is {sum(seconds['stock']) / sum(seconds[side]):.2f} times as fast as stock (single steps: "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}); largest difference in loss {difference:.1e}; "
            f"{len(batches)} steps of {len(batches[0]['chosen_input_ids'])} pairs",
            flush=True,
        )


def compare_peaks(arguments: list[str]) -> None:
    """Print each side's peak, of four steps in a process of its own, and the ratios."""
    peaks = {}
    for side in SIDES:
        command = [sys.executable, __file__, *arguments, "--steps", "4", "--alone", side]
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=own)
        loaded, peaks[side] = (int(part) / 2**20 for part in done.stdout.split()[-2:])
        print(
            f"{side}: {peaks[side]:.0f} MiB at its peak, {peaks[side] - loaded:.0f} of them for the steps; "
            f"{peaks[side] / peaks['stock']:.2f} of stock's",
            flush=True,
        )


def main() -> None:
    """Compare the trainers on each model in each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=[EMBEDDED, GEMMA], default=[EMBEDDED])
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16", "nf4"], default=["bfloat16"])
    parser.add_argument("--layers", type=int, default=18, help=f"blocks of {GEMMA}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=24, help="pairs a step")
    parser.add_argument(
        "--share", type=float, default=0.8, help="of the gradient, where the backward pass is selective"
    )
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--alone", choices=SIDES, help=argparse.SUPPRESS)
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
                shares = {"selective": options.share}
                trainers = {
                    side: made_trainer(
                        folders[name],
                        precision,
                        options.batch * options.steps,
                        folder=folder,
                        side=side,
                        share=shares.get(side, 1.0),
                    )
                    for side in ([options.alone] if options.alone else SIDES)
                }
                batches = batches_of(next(reversed(trainers.values())), options.batch)
                if options.alone:
                    print(*peak(trainers[options.alone], batches))
                    return
                print(f"{name} in {precision} on {device}")
                compare(trainers, batches)
                del trainers
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                alone = ["--models", name, "--precisions", precision, "--batch", str(options.batch)]
                compare_peaks([*alone, "--share", str(options.share), *places])


if __name__ == "__main__":
    main()
