"""What a CUDA device does: ORPO, ours and TRL's in one run, in NF4 and bfloat16; and vLLM on what was trained.

python benchmarks/gpu.py [--minutes 10] [--vllm PATH] [--steps 10] [--state .ontopic]

Four parts, from the quickest on, each printed as it ends; one that would pass the minutes is ended and said to be:
`orpo.py` on the embedded model and on one of gemma-2b's shape with random weights; a short training in NF4, merged into
a whole folder; that folder served by our service and, where its `vllm` is installed or named with ``--vllm`` (it pins
another torch, so it has an environment of its own), by vLLM, which answer the same questions greedily. The table of the
latter also says how many of vLLM's answers are word for word ours. Without a device it runs on the CPU with
``--models embedded``, for what it says of no GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import nf4_merging
import servers
import torch

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.config.training_settings import TrainingSettings
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, load, resolve
from ontopic.state.workspace import open_workspace
from ontopic.training.merging import merge
from ontopic.training.orpo import train_orpo

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def heading() -> str:
    """Date, device and versions."""
    device = f"CPU, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        device = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB, CUDA {torch.version.cuda}"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{datetime.now(UTC):%Y-%m-%d}, {device}; {versions}"


def step_of(model: str, precision: str, steps: int, *, state: Path, ends: float) -> str:
    """What `orpo.py` says of one model in one precision."""
    command = [sys.executable, str(ROOT / "benchmarks" / "orpo.py"), "--models", model, "--precisions", precision]
    command += ["--steps", str(steps), "--state", str(state)]
    try:
        left = max(1.0, ends - time.monotonic())
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=left).stdout
    except subprocess.TimeoutExpired as late:
        so_far = (late.stdout or b"").decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return f"{so_far}{model} in {precision}: the time was up\n"
    except subprocess.CalledProcessError as failed:
        return f"{failed.stdout}{model} in {precision}: failed: {failed.stderr.strip().splitlines()[-1:]}\n"


def exported(base: Path, work: Path, training: TrainingSettings, *, pairs: int) -> Path:
    """The folder of a whole model that was trained in NF4 for a few steps."""
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    made = nf4_merging.pairs_of(load_questions(policy.questions, split="train"), policy.refusal, pairs)
    started = time.perf_counter()
    result = train_orpo(load(base, "nf4"), base, preferences=made, settings=training, work=work)
    trained = time.perf_counter()
    merge(result.adapter, base, into=work / "whole", precision="nf4")
    print(
        f"trained in NF4: {result.steps} steps of {training.batch_size} pairs in {trained - started:.1f} s, "
        f"{result.metrics['tokens_per_second']:.0f} tokens/s in the last; "
        f"merged in {time.perf_counter() - trained:.1f} s"
    )
    return work / "whole"


def vllm_serves(vllm: str, folder: Path, *, ready_s: float) -> contextlib.AbstractContextManager[tuple[str, str, str]]:
    """vLLM's own server on a folder."""
    port = servers.free_port()
    command = [vllm, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
    return servers.process(command, "/health", model="model", port=port, ready_s=ready_s)


def compare_servers(folder: Path, vllm: str | None, questions: list[str], *, clients: int, ends: float) -> None:
    """Print what our service and vLLM do with the same folder and questions."""
    print("server | tokens/s | first token: median, 95 % (s) | whole answer: median, 95 % (s) | same answers as ours")
    sides = {"ours": lambda: servers.ours(folder)}
    if vllm:
        sides["vLLM"] = lambda: vllm_serves(vllm, folder, ready_s=max(1.0, ends - time.monotonic()))
    else:
        print("vLLM | left out: it is not installed, and --vllm names none")
    ours: dict[str, str] = {}
    for name, started in sides.items():
        try:
            with started() as server:
                asyncio.run(servers.measure(server, questions[:2], 2))  # warm
                measured = asyncio.run(servers.measure(server, questions, clients))
        except (RuntimeError, OSError) as error:  # a time-out is one of the latter
            print(f"{name} | failed: {str(error)[-300:]}")
            continue
        ours = ours or measured.answers
        same = sum(ours[question].strip() == text.strip() for question, text in measured.answers.items())
        print(f"{name} | {measured} | {same} of {len(questions)}", flush=True)


def main() -> None:
    """All parts that fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--vllm", help="vLLM's command, such as /opt/vllm/bin/vllm", default=shutil.which("vllm"))
    parser.add_argument("--models", nargs="+", default=[EMBEDDED, "gemma-2b"], choices=[EMBEDDED, "gemma-2b"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "nf4"], choices=["bfloat16", "nf4"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    print(heading(), flush=True)
    base = resolve(EMBEDDED, open_workspace(options.state))
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [q.question for q in load_questions(policy.questions, split="evaluation")][: options.questions]
    training = load_settings(ROOT / "configs/gpu.yaml").training.model_copy(
        update={"batch_size": 8, "gradient_accumulation": 1, "max_steps": options.steps}
    )
    steps = [(model, precision) for model in options.models for precision in options.precisions]
    for model, precision in (each for each in steps if each[0] == EMBEDDED):
        print(step_of(model, precision, options.steps, state=options.state, ends=ends), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = exported(base, Path(folder), training, pairs=8 * options.steps)
        compare_servers(whole, options.vllm, questions, clients=options.clients, ends=ends)
    for model, precision in (each for each in steps if each[0] != EMBEDDED):
        print(step_of(model, precision, options.steps, state=options.state, ends=ends), flush=True)


if __name__ == "__main__":
    main()
