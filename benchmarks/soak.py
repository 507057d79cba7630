"""The service for half an hour at 80 % of its capacity, with a promotion or a rollback every five minutes.

python benchmarks/soak.py [--minutes 30] [--state .ontopic]

The base model and the champion of a state folder take turns as the champion of a registry of the soak's own. At the
end: requests that failed, records that are lost or doubled, answers by version, and the memory of the service by the
stretch between two promotions. Exits with 1 where a request failed or a record is lost or doubled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psutil
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from ontopic.config.network import http_options
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.registry import versions as registry
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
NAME, TOKENS = "ontopic-soak", 40
SHARE, CLIENTS, CALIBRATION_S = 0.8, 16, 45
FLAT = 0.05


class Clients:
    """Asks the service, and notes what came back."""

    def __init__(self, served: ServedModel, questions: list[str]) -> None:
        self._questions = itertools.cycle(questions)
        self._openai = AsyncOpenAI(
            base_url=served.base_url,
            api_key=served.api_key,
            max_retries=0,
            timeout=300,
            http_client=DefaultAsyncHttpxClient(**http_options(served.base_url)),
        )
        self.answered: list[tuple[str, str]] = []
        self.failed: Counter[str] = Counter()

    async def ask(self) -> None:
        """One question; every third is streamed."""
        message = [{"role": "user", "content": next(self._questions)}]
        chat = self._openai.chat.completions.with_raw_response
        streamed = len(self.answered) % 3 == 0
        try:
            raw = await chat.create(model=NAME, messages=message, max_tokens=TOKENS, stream=streamed)  # type: ignore[call-overload]
            if streamed:
                async for _ in raw.parse():
                    pass
        except OpenAIError as error:
            self.failed[repr(error)[:200]] += 1
            return
        self.answered.append((raw.headers["x-ontopic-record-id"], raw.headers["x-ontopic-model-version"]))

    async def capacity(self) -> float:
        """Questions a second that so many clients get answered, each asking when it has its answer."""
        end, begun = time.perf_counter() + CALIBRATION_S, len(self.answered)

        async def client() -> None:
            while time.perf_counter() < end:
                await self.ask()

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return (len(self.answered) - begun) / CALIBRATION_S

    async def load(self, rate: float, seconds: float) -> None:
        """Questions at a rate, whether or not the earlier ones are answered."""
        begun, asked = time.perf_counter(), []
        while (now := time.perf_counter()) < begun + seconds:
            asked.append(asyncio.create_task(self.ask()))
            await asyncio.sleep(max(0.0, begun + len(asked) / rate - now))
        await asyncio.gather(*asked)


@contextlib.contextmanager
def two_versions(workspace: Workspace, state: Path) -> Iterator[Path]:
    """A registry with base and champion of ``state``; yields the base's folder."""
    source = open_workspace(state)
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    open_tracking(source, policy.registered_model)
    folders = [registry.find(policy.registered_model, which, workspace=source).folder for which in ("base", "champion")]
    open_tracking(workspace, NAME)
    for folder in folders:
        with mlflow.start_run() as run:
            registry.register(NAME, folder, digest=str(folder), run_id=run.info.run_id, workspace=workspace, tags={})
    open_registry(workspace, NAME).ensure_champion("1")
    yield folders[0]


def report_records(clients: Clients, workspace: Workspace) -> bool:
    """Say what was answered and stored; returns whether a record is lost, doubled or without an answer."""
    with TrafficStore(workspace.traffic, NAME) as traffic:
        stored = {record.id: record.model_version for record in traffic.stream()}
        rows = traffic.count()
    answered = dict(clients.answered)
    lost, extra = set(answered) - set(stored), set(stored) - set(answered)
    doubled = len(clients.answered) - len(answered) + rows - len(stored)
    print(f"{len(answered):,} answered, {sum(clients.failed.values())} failed {dict(clients.failed) or ''}")
    print(f"answers by version: {dict(Counter(answered.values()))}; of another than stored: ", end="")
    print(sum(stored.get(record) != version for record, version in answered.items()))
    print(f"records: {len(lost)} lost, {doubled} doubled, {len(extra)} without an answer")
    return bool(lost or doubled or extra)


def report_memory(memory: list[tuple[float, float]], moved: list[float]) -> None:
    """Say how much memory the service took between two promotions, and whether that is flat.

    Args:
        memory: seconds since the beginning, and bytes.
        moved: seconds since the beginning of each promotion.
    """
    edges = [0.0, *moved, float("inf")]
    levels = []
    for start, end in itertools.pairwise(edges):
        stretch = [rss for at, rss in memory if start + 60 < at < end]  # two versions are in memory at first
        if len(stretch) > 5:
            levels.append(statistics.median(stretch) / 2**20)
            print(f"from {start / 60:.1f} min on: {levels[-1]:,.0f} MiB")
    settled = levels[1:]
    if settled:
        spread = max(abs(level / statistics.mean(settled) - 1) for level in settled)
        print(f"memory after the first stretch: within {spread:.1%} of its mean (flat: {FLAT:.0%})")


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=5, help="Minutes between two promotions.")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [question.question for question in load_questions(policy.questions, split="evaluation")]
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(Path(folder))
        memory: list[tuple[float, float]] = []
        moved: list[float] = []
        over = threading.Event()
        with (
            two_versions(workspace, arguments.state) as base,
            ServedModel(
                Serving(
                    model_folder=base,
                    model_version="1",
                    model_name=NAME,
                    traffic=workspace.traffic,
                    state=workspace.root,
                    max_new_tokens=TOKENS,
                    follow=workspace.mlflow_uri,
                )
            ) as served,
        ):
            begun = time.perf_counter()

            def watch() -> None:
                while not over.wait(5):
                    family = psutil.Process(served.pid).children(recursive=True)
                    memory.append((time.perf_counter() - begun, sum(p.memory_info().rss for p in family)))

            def promote() -> None:
                models = open_registry(workspace, NAME)
                while not over.wait(arguments.every * 60):
                    version = "2" if models.champion() == "1" else "1"
                    models.promote(version, by="soak", why="it is time")
                    moved.append(time.perf_counter() - begun)
                    print(f"{moved[-1] / 60:5.1f} min: version {version} is promoted", flush=True)

            async def run() -> Clients:
                clients = Clients(served, questions)
                capacity = await clients.capacity()
                print(f"capacity with {CLIENTS} clients: {capacity:.2f} questions/s; load: {SHARE * capacity:.2f}")
                for target in (watch, promote):
                    threading.Thread(target=target, daemon=True).start()
                await clients.load(SHARE * capacity, arguments.minutes * 60)
                return clients

            clients = asyncio.run(run())
            over.set()
        lost = report_records(clients, workspace)
    report_memory(memory, moved)
    raise SystemExit(bool(clients.failed or lost))


if __name__ == "__main__":
    main()
