"""Continuous batching against static batches and one answer at a time, on the same model and questions.

python benchmarks/generation.py [--clients 16] [--questions 48] [--state .ontopic]

Clients ask in turns: the next question once the last is answered. A static batch takes all that wait and is generated
to its end; its first tokens are there after its first step. Then, as an evaluation does, all questions at once: ours
against a loop over batches in the questions' order. All sides run in one process, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from ontopic.models.continuous_batch import SLOTS, ContinuousBatch
from transformers import StoppingCriteria, StoppingCriteriaList

from ontopic.config.model_settings import Precision
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.answer import Generation, Sampling
from ontopic.models.chat_template import chat_prompts
from ontopic.models.generation import generate
from ontopic.models.loading import EMBEDDED, LanguageModel, load, resolve
from ontopic.state.workspace import open_workspace

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 40


@dataclass(eq=False)
class Asked:
    """A question on its way, and when what came of it came."""

    ids: list[int]
    at: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    done: Future[int] = field(default_factory=Future)


class FirstStep(StoppingCriteria):
    """Notes when a batch has its first tokens."""

    def __init__(self, batch: list[Asked]) -> None:
        self._batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Ends nothing."""
        for asked in self._batch:
            asked.first = asked.first or time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool)


@torch.inference_mode()
def generated_batch(
    model: LanguageModel, prompts: list[list[int]], criteria: Sequence[StoppingCriteria] = ()
) -> list[int]:
    """Tokens of each answer of one static batch, by Transformers' own loop."""
    tokenizer, causal = cast(Any, model.tokenizer), cast(Any, model.model)
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    end = tokenizer.eos_token_id
    output = causal.generate(
        **inputs,
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end,
        stopping_criteria=StoppingCriteriaList(criteria),
    )
    rows = output[:, inputs["input_ids"].shape[1] :].tolist()
    return [row.index(end) if end in row else len(row) for row in rows]


class StaticBatches:
    """Generates all that wait, up to ``most`` answers at a time, to the last one's end.

    It waits 50 ms for more: without, it falls into turns of one answer and of all others.
    """

    def __init__(self, model: LanguageModel, most: int) -> None:
        self._model, self._most = model, most
        self._waiting: queue.Queue[Asked] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, asked: Asked) -> None:
        """Queue a question."""
        self._waiting.put(asked)

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < self._most:
                    batch.append(self._waiting.get(timeout=0.05))
            lengths = generated_batch(self._model, [asked.ids for asked in batch], [FirstStep(batch)])
            for asked, length in zip(batch, lengths, strict=True):
                asked.done.set_result(length)


class Continuous:
    """Our batch."""

    def __init__(self, model: LanguageModel) -> None:
        self._batch = ContinuousBatch(model)

    def ask(self, asked: Asked) -> None:
        """Queue a question."""

        def piece(_: object) -> None:
            asked.first = asked.first or time.perf_counter()

        generation = Generation(asked.ids, Sampling(TOKENS), piece)
        generation.done.add_done_callback(lambda done: asked.done.set_result(done.result().completion_tokens))
        self._batch.submit([generation])


def measure(ask: Callable[[Asked], None], prompts: list[list[int]], clients: int) -> str:
    """Tokens a second, and the times of first token and whole answer."""

    def client(ids: list[int]) -> tuple[int, float, float]:
        asked = Asked(ids)
        ask(asked)
        tokens = asked.done.result()
        return tokens, asked.first - asked.at, time.perf_counter() - asked.at

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        rows = list(pool.map(client, prompts))
    seconds = time.perf_counter() - start
    first, whole = (np.quantile([row[i] for row in rows], [0.5, 0.95]) for i in (1, 2))
    rate = sum(row[0] for row in rows) / seconds
    return f"{rate:6.0f} | {first[0]:.2f}, {first[1]:.2f} | {whole[0]:.2f}, {whole[1]:.2f}"


def offline(model: LanguageModel, questions: list[str], prompts: list[list[int]]) -> None:
    """Print the tokens a second of an evaluation's answers, which nobody waits for one by one."""
    rates: dict[str, float] = {}
    for name, size in (("one at a time", 1), ("batches of 8 in order", 8), (f"batches of {SLOTS} in order", SLOTS)):
        start = time.perf_counter()
        tokens = sum(sum(generated_batch(model, prompts[i : i + size])) for i in range(0, len(prompts), size))
        rates[name] = tokens / (time.perf_counter() - start)
    start = time.perf_counter()
    answers = generate(
        model, [[{"role": "user", "content": question}] for question in questions], max_new_tokens=TOKENS, slots=SLOTS
    )
    rates["ours"] = sum(answer.completion_tokens for answer in answers) / (time.perf_counter() - start)
    print(f"an evaluation of {len(prompts)} questions | tokens/s | ours is so many times as fast")
    for name, rate in rates.items():
        print(f"{name} | {rate:.0f} | {rates['ours'] / rate:.2f}")


def main() -> None:
    """Measure all sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="of the weights")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    model = load(resolve(EMBEDDED, open_workspace(arguments.state)), arguments.precision)
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    questions = [q.question for q in load_questions(policy.questions, split="evaluation")][: arguments.questions]
    texts = chat_prompts(model.tokenizer, [[{"role": "user", "content": question}] for question in questions])
    tokenizer: Any = model.tokenizer
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    sides = {
        "continuous batching": Continuous(model).ask,
        "static batches": StaticBatches(model, arguments.clients).ask,
        "one at a time": StaticBatches(model, 1).ask,
    }
    print(f"{arguments.clients} clients, {len(prompts)} questions of up to {TOKENS} tokens")
    print("side | tokens/s | first token: median, 95 % (s) | whole answer: median, 95 % (s)")
    for name, ask in sides.items():
        measure(ask, prompts[:2], 2)  # warm
        print(f"{name} | {measure(ask, prompts, arguments.clients)}", flush=True)
    offline(model, questions, prompts)


if __name__ == "__main__":
    main()
