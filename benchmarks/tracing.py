"""What traces for OpenTelemetry cost a service with many clients.

python benchmarks/tracing.py [--clients 16] [--rounds 6] [--model FOLDER] [--state .ontopic]

Two services of the embedded model run beside each other and are asked the same questions in turns, round by round in
changing order: streamed, greedily, up to 40 tokens, as many at once as there are clients. One sends a trace of each
request to a collector on this machine, which takes and forgets them. At the end: tokens/s of each, and their ratio with
an interval over rounds. Exits with 1 where tracing costs more than 5 % by the ratio itself.

MLflow is not asked while an answer is made: traffic goes there after its window has closed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from guard import TOKENS, Measured, in_turns

from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.loading import EMBEDDED, resolve
from ontopic.state.workspace import open_workspace
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 0.05
VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
PLAIN, TRACED = "no traces", "traces"


class Collector:
    """Takes traces. ``bytes`` counts what has come."""

    def __init__(self) -> None:
        self.bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Its address, while it runs."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector.bytes += len(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def measured(model: Path, *, questions: list[str], clients: int, rounds: int) -> tuple[dict[str, Measured], int]:
    """What each side took, and how many bytes of traces came."""
    collector = Collector()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        address, served = stack.enter_context(collector.running()), {}
        for side in (PLAIN, TRACED):
            state = Path(folder) / side.replace(" ", "-")
            state.mkdir()
            os.environ.pop(VARIABLE, None)
            os.environ |= {VARIABLE: address} if side == TRACED else {}
            serving = Serving(
                model_folder=model,
                model_version="1",
                model_name="smol",
                traffic=state / "traffic.db",
                state=state,
                max_new_tokens=TOKENS,
            )
            served[side] = stack.enter_context(ServedModel(serving))
        found = in_turns(served, rounds=rounds, questions=questions, clients=clients)
    return found, collector.bytes


def interval(plain: list[float], traced: list[float]) -> tuple[float, float]:
    """95 % of the ratio of tokens/s, by a bootstrap over rounds."""
    draws = np.random.default_rng(0).integers(len(plain), size=(10_000, len(plain)))
    low, high = np.quantile(np.array(traced)[draws].mean(axis=1) / np.array(plain)[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--model", type=Path, help="the embedded model by default")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    model = options.model or resolve(EMBEDDED, open_workspace(options.state)).resolve()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    asked = [q.question for q in load_questions(policy.questions, split="evaluation") if not q.history]
    asked = random.Random(0).sample(asked, 2 * options.clients)
    found, sent = measured(model, questions=asked, clients=options.clients, rounds=options.rounds)
    print(f"{options.clients} clients, {options.rounds} rounds of {len(asked)} questions, up to {TOKENS} tokens each")
    for side, of in found.items():
        first = np.quantile(of.first, [0.5, 0.95])
        print(f"{side}: {of.tokens / of.seconds:.1f} tokens/s ({', '.join(f'{each:.0f}' for each in of.rates)}); "
              f"first token {first[0]:.3f} s, 95 % {first[1]:.3f} s")  # fmt: skip
    ratio = np.mean(found[TRACED].rates) / np.mean(found[PLAIN].rates)
    low, high = interval(found[PLAIN].rates, found[TRACED].rates)
    print(f"with traces to without: {ratio:.3f} [{low:.3f}, {high:.3f}] (at least {1 - LIMIT}); {sent:,} bytes came")
    sys.exit(0 if ratio >= 1 - LIMIT else 1)


if __name__ == "__main__":
    main()
