"""What a rollout costs: users' latency beside a challenger that answers unseen, and the memory of a second version.

python benchmarks/rollout.py [--state .ontopic] [--seconds 60] [--rounds 3] [--load 0.3]

Base and a second version, the base with an adapter merged into it, are served by one service. Users ask at a share of
the capacity that is measured first, at random times (Poisson). Rounds with a shadow stage and without one alternate, in
an order that a seed draws; all have the same questions at the same times. At the end: the latency of whole answers by
side, the ratio of the 95th percentiles with a bootstrap interval over rounds, how many answers were stored and dropped
in the shadow, and what a second version takes in memory.
Exits with 1 where the ratio is over 1.1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import mlflow
import psutil
import torch
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ontopic.config.network import http_options
from ontopic.config.policy import load_policy
from ontopic.config.watch_settings import PromotionSettings
from ontopic.data.labelled import load_questions
from ontopic.models.adapter_base import ADAPTER
from ontopic.models.generation import generate
from ontopic.models.loading import EMBEDDED, load, open_model, resolve
from ontopic.registry import rollouts
from ontopic.registry import versions as registry
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
NAME, TOKENS, LIMIT = "ontopic-rollout", 40, 1.1
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tuned(base: Path, folder: Path) -> Path:
    """The base with a small random adapter of rank 16 merged into it, which lies beside it."""
    from peft import LoraConfig, get_peft_model

    loaded = load(base, "float32")
    torch.manual_seed(1)
    model = get_peft_model(loaded.model, LoraConfig(r=16, lora_alpha=32, target_modules=PROJECTIONS))  # type: ignore[arg-type]
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.002)
    model.save_pretrained(folder / ADAPTER)
    model.merge_and_unload().save_pretrained(folder)  # type: ignore[operator]
    loaded.tokenizer.save_pretrained(folder)
    return folder


class Users:
    """Asks the service at given times, and notes how long each whole answer took."""

    def __init__(self, served: ServedModel, questions: list[str]) -> None:
        self._questions = questions
        http_client = DefaultAsyncHttpxClient(**http_options(served.base_url))
        self._client = AsyncOpenAI(
            base_url=served.base_url, api_key=served.api_key, max_retries=0, timeout=300, http_client=http_client
        )

    async def ask(self, question: str) -> float:
        """Seconds of one answer."""
        start = time.perf_counter()
        message = {"role": "user", "content": question}
        await self._client.chat.completions.create(model=NAME, messages=[message], max_tokens=TOKENS)  # type: ignore[list-item]
        return time.perf_counter() - start

    async def capacity(self, seconds: float) -> float:
        """Questions a second that eight clients get answered."""
        n, end = 0, time.perf_counter() + seconds

        async def client(i: int) -> None:
            nonlocal n
            while time.perf_counter() < end:
                await self.ask(self._questions[(n + i) % len(self._questions)])
                n += 1

        begun = time.perf_counter()
        await asyncio.gather(*(client(i) for i in range(8)))
        return n / (time.perf_counter() - begun)

    async def stretch(self, rate: float, seconds: float, *, seed: int) -> list[float]:
        """The latency of each question of a stretch; the same seed has the same questions at the same times."""
        draw, asked, at = random.Random(seed), list[asyncio.Task[float]](), 0.0
        begun = time.perf_counter()
        while (at := at + draw.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
            asked.append(asyncio.create_task(self.ask(draw.choice(self._questions))))
        return list(await asyncio.gather(*asked))


def shadowed(served: ServedModel) -> dict[str, float]:
    """What became of the answers that nobody saw, so far."""
    headers = {"authorization": f"Bearer {served.api_key}"}
    url = f"{served.base_url.removesuffix('/v1')}/metrics"
    lines = httpx.get(url, headers=headers, trust_env=False).text.splitlines()
    begins = "ontopic_shadow_answers_total{outcome="
    return {each.split('"')[1]: float(each.rpartition(" ")[2]) for each in lines if each.startswith(begins)}


def p95(values: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def interval(without: list[list[float]], shadow: list[list[float]]) -> tuple[float, float]:
    """A 95 % bootstrap interval of the ratio of the 95th percentiles: pairs of rounds are drawn, then their answers."""
    draw, ratios = random.Random(0), []
    for _ in range(2000):
        rounds = draw.choices(range(len(without)), k=len(without))
        one, other = (
            [value for i in rounds for value in draw.choices(side[i], k=len(side[i]))] for side in (without, shadow)
        )
        ratios.append(p95(other) / p95(one))
    ratios.sort()
    return ratios[49], ratios[-50]


def begin(workspace: Workspace) -> None:
    """Begin a shadow stage of version 2."""
    settings = PromotionSettings(rollout="shadow")
    rollouts.promote_or_roll_out(
        open_registry(workspace, NAME), "2", settings=settings, by="benchmark", why="to see", facts={}
    )


def finish(workspace: Workspace) -> None:
    """End it."""
    from datetime import UTC, datetime

    models = open_registry(workspace, NAME)
    rollout = rollouts.rollout_of(models.record.entries(NAME))
    assert rollout is not None  # noqa: S101
    rollouts.end(models, rollout, outcome="ended", by="benchmark", why="seen", at=datetime.now(UTC))


async def latency(served: ServedModel, workspace: Workspace, *, questions: list[str], of: argparse.Namespace) -> bool:
    """Print users' latency with a shadow stage and without; whether the ratio is within the limit."""
    users, draw = Users(served, questions), random.Random(7)
    await users.capacity(5)
    capacity = await users.capacity(20)
    rate = of.load * capacity
    print(f"capacity with 8 clients {capacity:.2f} questions/s; users ask {rate:.2f} a second")
    sides: dict[bool, list[list[float]]] = {False: [], True: []}
    for number in range(of.rounds):
        for with_shadow in draw.sample([False, True], k=2):
            if with_shadow:
                begin(workspace)
            await asyncio.sleep(15)  # the service follows, and loads it
            sides[with_shadow].append(await users.stretch(rate, of.seconds, seed=number))
            if with_shadow:
                finish(workspace)
                await asyncio.sleep(3)
            print(f"round {number + 1}, {'shadow' if with_shadow else 'none':>6}: {line(sides[with_shadow][-1])}")
    without, shadow = ([value for each in sides[side] for value in each] for side in (False, True))
    low, high = interval(sides[False], sides[True])
    ratio = p95(shadow) / p95(without)
    print(f"without: {line(without)}\nshadow:  {line(shadow)}")
    print(f"95th percentile, shadow to without: {ratio:.3f} [{low:.3f}, {high:.3f}] (limit {LIMIT})")
    print(f"in the shadow: {shadowed(served)} of {len(shadow)} questions")
    return ratio <= LIMIT


def line(values: list[float]) -> str:
    """Latencies in words."""
    return f"n {len(values)}, median {statistics.median(values):.2f} s, 95th percentile {p95(values):.2f} s"


def _held(process: psutil.Process) -> int:
    """Resident bytes of a process and of the engines below it."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def report_second_version(base: Path, other: Path, *, questions: list[str]) -> None:
    """Print what a second version takes in memory, and how fast either generates."""
    process, kept = psutil.Process(), []
    asked = [[{"role": "user", "content": question}] for question in questions[:8]]
    for name, folder in (("the first version", base), ("the second", other)):
        before, begun = _held(process), time.perf_counter()
        kept.append(open_model(folder))
        generate(kept[-1], asked[:1], max_new_tokens=1)
        took, rss = time.perf_counter() - begun, (_held(process) - before) / 2**20
        start = time.perf_counter()
        found = generate(kept[-1], asked, max_new_tokens=TOKENS)
        rate = sum(each.completion_tokens for each in found) / (time.perf_counter() - start)
        print(f"{name}: {rss:.0f} MiB resident, ready in {took:.1f} s, {rate:.1f} tokens/s of 8 answers at once")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What stretches of users' questions are measured by."""
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic", help="Where the embedded model is converted.")
    parser.add_argument("--seconds", type=float, default=60, help="Of each stretch.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=float, default=0.3, help="Of the capacity, in (0, 1).")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    of = parser.parse_args()
    print(f"{os.cpu_count()} cores, float32")
    base = resolve(EMBEDDED, Workspace(root=of.state.resolve()))
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [question.question for question in load_questions(policy.questions, split="evaluation")]
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(Path(folder))
        other = tuned(base, workspace.root / "tuned")
        report_second_version(base, other, questions=questions)
        open_tracking(workspace, NAME)
        for version in (base, other):
            with mlflow.start_run() as run:
                values = {"digest": version.name, "run_id": run.info.run_id, "workspace": workspace, "tags": {}}
                registry.register(NAME, version, **values)
        open_registry(workspace, NAME).ensure_champion("1")
        serving = Serving(
            model_folder=base,
            model_version="1",
            model_name=NAME,
            traffic=workspace.traffic,
            state=workspace.root,
            max_new_tokens=TOKENS,
            follow=workspace.mlflow_uri,
            precision="float32",
        )
        with ServedModel(serving) as served:
            within = asyncio.run(latency(served, workspace, questions=questions, of=of))
    raise SystemExit(not within)


if __name__ == "__main__":
    main()
