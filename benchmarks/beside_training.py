"""Users' latency while the same machine trains, against that of the idle machine.

python benchmarks/beside_training.py [--state .ontopic] [--seconds 60] [--rounds 3] [--load 0.3]

The embedded model is served, and users ask at a share of the capacity that is measured first, at random times
(Poisson). Stretches beside a training, as `watch` runs it, and without one alternate, in an order that a seed draws; a
round has the same questions at the same times on both sides. At the end: the latency of whole answers by side, and the
ratio of the 95th percentiles with a bootstrap interval over rounds. Exits with 1 where the ratio is over 2.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from nf4_merging import pairs_of
from rollout import NAME, TOKENS, Users, add_options, interval, line, p95

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, resolve
from ontopic.state.workspace import open_workspace
from ontopic.training.processes import train_in_processes
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
LIMIT, PAIRS = 2.0, 480


def train(base: Path) -> None:
    """Train and train again, until this process is ended."""
    threads = {"threads": max(1, (os.cpu_count() or 1) // 2)}
    settings = load_settings(ROOT / "configs/local.yaml").training.model_copy(update=threads)
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    preferences = pairs_of(load_questions(policy.questions, split="train"), policy.refusal, PAIRS)
    for _ in itertools.count():
        with tempfile.TemporaryDirectory() as work:
            train_in_processes(base, "auto", preferences=preferences, settings=settings, work=Path(work))


@contextmanager
def training(base: Path) -> Iterator[None]:
    """A training beside what happens in the block, once it is past its beginning."""
    command = [sys.executable, __file__, "--train", str(base)]
    with tempfile.TemporaryFile() as log, psutil.Popen(command, stdout=log, stderr=log) as process:
        try:
            time.sleep(30)
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"the training ended: {log.read()[-2000:].decode(errors='replace')}")
            yield
        finally:
            for each in (*process.children(recursive=True), process):
                each.kill()


async def latency(served: ServedModel, base: Path, *, questions: list[str], of: argparse.Namespace) -> bool:
    """Print users' latency beside a training and without; whether the ratio is within the limit."""
    users, draw = Users(served, questions), random.Random(7)
    await users.capacity(5)
    capacity = await users.capacity(20)
    rate = of.load * capacity
    print(f"capacity with 8 clients {capacity:.2f} questions/s; users ask {rate:.2f} a second", flush=True)
    sides: dict[bool, list[list[float]]] = {False: [], True: []}
    for number in range(of.rounds):
        for beside in draw.sample([False, True], k=2):
            if beside:
                with training(base):
                    sides[beside].append(await users.stretch(rate, of.seconds, seed=number))
            else:
                sides[beside].append(await users.stretch(rate, of.seconds, seed=number))
            side = "beside a training" if beside else "idle"
            print(f"round {number + 1}, {side}: {line(sides[beside][-1])}", flush=True)
    idle, busy = ([value for each in sides[side] for value in each] for side in (False, True))
    low, high = interval(sides[False], sides[True])
    ratio = p95(busy) / p95(idle)
    print(f"idle:              {line(idle)}\nbeside a training: {line(busy)}")
    print(f"95th percentile, beside a training to idle: {ratio:.3f} [{low:.3f}, {high:.3f}] (limit {LIMIT})")
    return ratio <= LIMIT


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return
    base = resolve(EMBEDDED, open_workspace(arguments.state)).resolve()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [q.question for q in load_questions(policy.questions, split="evaluation") if not q.history]
    with tempfile.TemporaryDirectory() as state:
        path = Path(state)
        serving = Serving(
            model_folder=base,
            model_version="1",
            model_name=NAME,
            traffic=path / "traffic.db",
            state=path,
            max_new_tokens=TOKENS,
        )
        with ServedModel(serving) as served:
            within = asyncio.run(latency(served, base, questions=questions, of=arguments))
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
