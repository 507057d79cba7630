"""The whole service against `transformers serve` and llama.cpp's server, over HTTP, on the same model.

python benchmarks/servers.py [--clients 1,4,16,64] [--repeats 2] [--model FOLDER] [--state .ontopic]

Every side answers the same questions by the OpenAI protocol, streamed, greedily, with up to 40 tokens. Clients ask in
turns: the next question once the last is answered. Sides take turns at each number of clients, so that what else the
machine does meets all. `engine` is ours without HTTP, keys and storing. llama.cpp's server, of the package xllamacpp,
has the model in float16 and in 4 bits (Q4_0). `transformers serve` takes part where it is installed (pip install
"transformers[serving]"). At the end: our tokens/s and our first token's p95 against the best of llama.cpp, and our
tokens/s against the engine's. A side that hangs is said to.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ontopic.config.model_settings import FilePrecision
from ontopic.config.network import http_options
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.answer import Generation, Sampling
from ontopic.models.chat_template import chat_prompts
from ontopic.models.engines import begin_batch
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import EMBEDDED, open_model, resolve
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


_LLAMA_CPP = """
import sys, threading, xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.hostnames, given.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
given.n_ctx, given.n_parallel, given.warmup, given.verbosity = 32768, 64, True, -1
given.cpuparams.n_threads = given.cpuparams_batch.n_threads = int(sys.argv[3])
server = xllamacpp.Server(given)
threading.Event().wait()
"""


@contextlib.contextmanager
def llama_cpp(folder: Path, precision: FilePrecision) -> Iterator[tuple[str, str, str]]:
    """llama.cpp's server on what we export."""
    with tempfile.TemporaryDirectory() as work:
        write_gguf(folder, Path(work) / "model.gguf", precision=precision, name="smol")
        port = free_port()
        of = [str(Path(work) / "model.gguf"), str(port), str(os.cpu_count() or 1)]
        with process([sys.executable, "-c", _LLAMA_CPP, *of], "/health", model="smol", port=port) as server:
            yield server


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


def measure_engine(folder: Path, questions: list[str], clients: int) -> Measured:
    """As ``measure``, of our engine in this process."""
    model = open_model(folder)
    batch = begin_batch(model)
    prompts = chat_prompts(model.tokenizer, [[{"role": "user", "content": question}] for question in questions])
    waiting = iter([model.tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts])
    rows: list[tuple[int, float, float]] = []
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                ids = next(waiting, None)
            if ids is None:
                return
            start, first = time.perf_counter(), list[float]()
            generation = Generation(ids, Sampling(TOKENS), lambda _, first=first: first.append(time.perf_counter()))  # type: ignore[misc]
            batch.submit([generation])
            tokens = generation.done.result().completion_tokens
            rows.append((tokens, (first or [time.perf_counter()])[0] - start, time.perf_counter() - start))

    warm = Generation([1, 2, 3], Sampling(2))
    batch.submit([warm])
    warm.done.result()
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(client)
    seconds = time.perf_counter() - begun
    batch.close()
    first, whole = (tuple(np.quantile([row[i] for row in rows], [0.5, 0.95])) for i in (1, 2))
    return Measured(sum(row[0] for row in rows) / seconds, first, whole, {})


def measured(side: str, folder: Path, *, questions: list[str], clients: int) -> Measured:
    """What clients meet at one side, warm."""
    if side == "engine":
        return measure_engine(folder, questions, clients)
    with started(side, folder) as server:
        asyncio.run(measure(server, questions[-2:], 2))
        return asyncio.run(measure(server, questions, clients))


def started(side: str, folder: Path) -> contextlib.AbstractContextManager[tuple[str, str, str]]:
    """A side's server."""
    if side == "ours":
        return ours(folder)
    if side.startswith("llama.cpp"):
        return llama_cpp(folder, "float16" if side.endswith("float16") else "int4")
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32"] + (["--continuous-batching"] if side.endswith("-cb") else [])
    return process(command, "/health", model=str(folder), port=port)


def ratios(rows: dict[str, list[Measured]]) -> str:
    """Ours against the others, by the medians of the repeats."""
    rate = {side: float(np.median([each.rate for each in of])) for side, of in rows.items() if of}
    first = {side: float(np.median([each.first[1] for each in of])) for side, of in rows.items() if of}
    best = max((side for side in rate if side.startswith("llama.cpp")), key=rate.__getitem__, default=None)
    said = []
    if best and "ours" in rate:
        said.append(
            f"tokens/s {rate['ours'] / rate[best]:.2f} times {best}'s, p95 of the first token "
            f"{first['ours'] / first[best]:.2f} times"
        )
    if {"ours", "engine"} <= rate.keys():
        said.append(f"{rate['ours'] / rate['engine']:.2f} of the engine's tokens/s")
    return "; ".join(said)


def main() -> None:
    """Measure all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sides", default="ours,engine,llama.cpp float16,llama.cpp int4")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    folder = (arguments.model or resolve(EMBEDDED, open_workspace(arguments.state))).resolve()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [q.question for q in load_questions(policy.questions, split="evaluation") if not q.history]
    print("clients | side | tokens/s | first token: median, 95 % (s) | whole answer: median, 95 % (s)")
    for clients in map(int, arguments.clients.split(",")):
        rows: dict[str, list[Measured]] = {side: [] for side in arguments.sides.split(",")}
        for side in [*rows] * arguments.repeats:
            try:
                rows[side].append(measured(side, folder, questions=questions[: max(16, 2 * clients)], clients=clients))
                print(f"{clients} | {side} | {rows[side][-1]}", flush=True)
            except TimeoutError:
                print(f"{clients} | {side} | no answer to all within {PATIENCE_S} s", flush=True)
            except Exception as error:
                print(f"{clients} | {side} | failed: {type(error).__name__}: {str(error)[-300:]}", flush=True)
        print(f"{clients} | {ratios(rows)}", flush=True)


if __name__ == "__main__":
    main()
