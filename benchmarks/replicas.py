"""What replicas cost that share their state and stand behind a balancer, beside one service that is alone.

python benchmarks/replicas.py --database postgresql://… [--clients 8] [--rounds 8] [--model FOLDER] [--state .ontopic]

Four sides are asked the same questions in turns, round by round in changing order: streamed, greedily, up to 40 tokens,
as many at once as there are clients. All ask for a key with limits, which are counted.

alone            one service, its state in a folder
shared           one service on PostgreSQL: keys, limits and records
behind HAProxy   the same one, asked through the balancer
two              two of them behind it; on the cores of one machine that is no faster

Ratios are of the same round, with a 95 % interval over the rounds. The database is to be an empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from guard import TOKENS, Measured, ask_all
from scipy import stats

from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, resolve
from ontopic.state.workspace import open_workspace
from serving.keys import KeyStore
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
ALONE, SHARED, BALANCED, TWO = "alone", "shared", "behind HAProxy", "two"
_NOBODY = "127.0.0.1:9"


@contextlib.contextmanager
def balancer(*replicas: str) -> Iterator[str]:
    """HAProxy before one or two replicas, with the file that is shipped; its URL, once it has found them."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    addresses = [url.removeprefix("http://").removesuffix("/v1") for url in replicas]
    given = {"ONTOPIC_LISTEN": f"127.0.0.1:{port}", "ONTOPIC_REPLICA_1": addresses[0]}
    given["ONTOPIC_REPLICA_2"] = addresses[1] if len(addresses) > 1 else _NOBODY
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or "haproxy"
    command = [haproxy, "-db", "-q", "-f", str(ROOT / "serving" / "haproxy.cfg")]
    process = subprocess.Popen(command, env=os.environ | given, stdout=subprocess.DEVNULL)
    try:
        time.sleep(5)  # one that is not there is found out
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def key_in(at: Path | str) -> str:
    """A key whose limits nobody reaches."""
    return KeyStore(at).make("benchmark", 100_000, tokens_per_minute=1_000_000_000)


def measure(model: Path, database: str, *, questions: list[str], clients: int, rounds: int) -> dict[str, Measured]:
    """Ask all sides."""
    found = {side: Measured() for side in (ALONE, SHARED, BALANCED, TWO)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def serve(name: str, at: Path | str | None) -> str:
            state = Path(folder) / name
            state.mkdir()
            served = Serving(
                model_folder=model,
                model_version="1",
                model_name="smol",
                traffic=at or state / "traffic.db",
                keys=at or state / "keys.db",
                state=state,
                max_new_tokens=TOKENS,
            )
            return stack.enter_context(ServedModel(served)).base_url

        alone, one, other = serve("0", None), serve("1", database), serve("2", database)
        keys = {ALONE: key_in(Path(folder) / "0" / "keys.db")}
        keys |= dict.fromkeys((SHARED, BALANCED, TWO), key_in(database))
        urls = {ALONE: alone, SHARED: one}
        urls |= {BALANCED: stack.enter_context(balancer(one)), TWO: stack.enter_context(balancer(one, other))}
        for side, url in urls.items():
            asked = httpx.get(f"{url}/models", headers={"authorization": f"Bearer {keys[side]}"}, trust_env=False)
            asked.raise_for_status()
        chance = random.Random(0)
        for number in range(rounds + 1):
            for side in chance.sample(list(urls), len(urls)):
                into = found[side] if number else Measured()  # the first round warms up
                asyncio.run(ask_all(urls[side], keys[side], questions=questions, clients=clients, into=into))
    return found


def ratio(side: Measured, base: Measured) -> str:
    """Tokens/s beside another side's in the same rounds, with a 95 % interval by Student's t of the logarithm."""
    logs = np.log(np.array(side.rates) / np.array(base.rates))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}] (n={len(logs)} rounds)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL of an empty PostgreSQL database")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--model", type=Path, help="the embedded model by default")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    workspace = open_workspace(options.state)
    model = options.model or resolve(EMBEDDED, workspace).resolve()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    asked = [q.question for q in load_questions(policy.questions, split="evaluation") if q.in_scope and not q.history]
    asked = random.Random(0).sample(asked, 2 * options.clients)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    found = measure(model, options.database, questions=asked, clients=options.clients, rounds=options.rounds)
    print(f"{options.clients} clients, {options.rounds} rounds of {len(asked)} questions, up to {TOKENS} tokens each")
    print("side | tokens/s | first token: median, 95 % (s) | whole answer: median, 95 % (s)")
    for side, of in found.items():
        first, whole = np.quantile(of.first, [0.5, 0.95]), np.quantile(of.whole, [0.5, 0.95])
        print(
            f"{side} | {of.tokens / of.seconds:.1f} | {first[0]:.3f}, {first[1]:.3f} | {whole[0]:.3f}, {whole[1]:.3f} "
            f"(n={len(of.whole)})"
        )
    for side, base in ((SHARED, ALONE), (BALANCED, SHARED), (TWO, BALANCED), (TWO, ALONE)):
        print(f"{side} / {base}: {ratio(found[side], found[base])} of the tokens/s")
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
