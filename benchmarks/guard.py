"""What the guard costs a service with many clients, and what it does to the answers.

python benchmarks/guard.py [--clients 16] [--rounds 6] [--questions FILE] [--model FOLDER] [--state .ontopic]

Cost: services with no guard, and with one that is enforced, holding nothing back or each sentence, run beside each
other and are asked the same questions in turns, round by round in changing order: streamed, greedily, up to 40 tokens,
as many at once as there are clients. The questions are in scope, so that all sides generate.

Effect, where labelled questions are given: guardrail score, over-refusal and leak of the model alone and behind the
guard, judged by the embedded judge, which is told the scope as in the gate; the guard is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from ontopic.config.network import http_options
from ontopic.config.policy import load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.data.rows import load_rows
from ontopic.evaluation.answers import Evaluation, evaluate
from ontopic.judges.guard.card import guard_card, load_guard
from ontopic.judges.opening import open_judge
from ontopic.models.loading import EMBEDDED, load, resolve
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.scores import score
from serving.guarding import Guarding
from serving.process import ServedModel, Serving

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 40
NONE, CUT, HELD = "no guard", "guard, nothing held back", "guard, sentences held back"


class Measured:
    """What one side took, over all rounds."""

    def __init__(self) -> None:
        self.tokens, self.seconds, self.stopped = 0, 0.0, 0
        self.first: list[float] = []
        self.whole: list[float] = []
        self.rates: list[float] = []


async def ask_all(url: str, key: str, *, questions: list[str], clients: int, into: Measured) -> None:
    """Ask the questions, so many at once."""
    waiting, tokens = iter(questions), 0

    async def client(openai: AsyncOpenAI) -> None:
        nonlocal tokens
        for question in waiting:
            start, first = time.perf_counter(), 0.0
            stream = await openai.chat.completions.create(
                model="smol",
                messages=[{"role": "user", "content": question}],
                max_tokens=TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    first = first or time.perf_counter() - start
                if chunk.choices and chunk.choices[0].finish_reason == "content_filter":
                    into.stopped += 1
                if chunk.usage:
                    tokens += chunk.usage.completion_tokens
            into.first.append(first)
            into.whole.append(time.perf_counter() - start)

    http_client = DefaultAsyncHttpxClient(**http_options(url))
    start = time.perf_counter()
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=600, http_client=http_client) as openai:
        await asyncio.gather(*(client(openai) for _ in range(clients)))
    seconds = time.perf_counter() - start
    into.tokens += tokens
    into.seconds += seconds
    into.rates.append(tokens / seconds)


def in_turns(
    served: Mapping[str, ServedModel], *, rounds: int, questions: list[str], clients: int
) -> dict[str, Measured]:
    """What running services took that are asked the same, round by round in changing order, the first one uncounted."""
    found, chance = {side: Measured() for side in served}, random.Random(0)
    for number in range(rounds + 1):
        for side in chance.sample(list(served), len(served)):
            into = found[side] if number else Measured()  # the first round warms up
            url, key = served[side].base_url, served[side].api_key
            asyncio.run(ask_all(url, key, questions=questions, clients=clients, into=into))
    return found


def cost(model: Path, card: Path, *, questions: list[str], clients: int, rounds: int) -> None:
    """Print tokens a second and the times of first token and whole answer, a line a side."""
    guardings = {
        NONE: None,
        CUT: Guarding(mode="enforce", card=card),
        HELD: Guarding(mode="enforce", card=card, held_back="sentence"),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        served = {}
        for side, guarding in guardings.items():
            state = Path(folder) / str(len(served))
            state.mkdir()
            values = {"model_version": "1", "model_name": "smol", "max_new_tokens": TOKENS, "guarding": guarding}
            serving = Serving(model_folder=model, traffic=state / "traffic.db", state=state, **values)
            served[side] = stack.enter_context(ServedModel(serving))
        found = in_turns(served, rounds=rounds, questions=questions, clients=clients)
    print(f"{clients} clients, {rounds} rounds of {len(questions)} questions in scope, up to {TOKENS} tokens each")
    print("side | tokens/s (by round) | first token: median, 95 % (s) | whole answer: median, 95 % (s) | stopped")
    for side, of in found.items():
        first, whole = np.quantile(of.first, [0.5, 0.95]), np.quantile(of.whole, [0.5, 0.95])
        rates = ", ".join(f"{each:.0f}" for each in of.rates)
        print(
            f"{side} | {of.tokens / of.seconds:.1f} ({rates}) | {first[0]:.3f}, {first[1]:.3f} | "
            f"{whole[0]:.2f}, {whole[1]:.2f} | {of.stopped}"
        )
    base = found[NONE]
    for side in (CUT, HELD):
        of = found[side]
        ratio = of.tokens / of.seconds / (base.tokens / base.seconds)
        later = [1000 * (np.quantile(of.first, q) - np.quantile(base.first, q)) for q in (0.5, 0.95)]
        print(
            f"{side}: {ratio:.3f} of the tokens/s; first token {later[0]:+.0f} ms (median), {later[1]:+.0f} ms (95 %)"
        )


def effect(model: Path, card: Path, *, questions: list[Question], choice: JudgeChoice, workspace: Workspace) -> None:
    """Print the scores of the model alone and behind the guard."""
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    found: Evaluation = evaluate(
        load(model),
        model.name,
        judge=open_judge(choice, policy, workspace=workspace),
        questions=questions,
        max_new_tokens=64,
        batch_size=64,
        guard=load_guard(card),
    )
    if found.alone is None:
        raise RuntimeError("the answers went through no guard")
    stages = [record.guard.stage for record in found.records if record.guard]
    print(f"\n{len(questions)} labelled questions; stopped before generation {stages.count('question')}, after it "
          f"{stages.count('answer')}")  # fmt: skip
    sides: dict[str, list[Verdict]] = {"alone": found.alone.verdicts, "behind the guard": found.verdicts}
    for side, verdicts in sides.items():
        of = score(verdicts)
        print(f"{side:<17} score {of.guardrail_score}; over-refusal {of.over_refusal}; leak {of.leak}; "
              f"{of.unjudged} unjudged")  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6, help="0 leaves the cost out")
    parser.add_argument("--questions", type=Path, help="labelled questions, for the effect")
    parser.add_argument("--model", type=Path, help="the embedded model by default")
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    workspace = open_workspace(options.state)
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    found = guard_card(policy, workspace=workspace, budget=options.budget)
    print(f"guard {found.judge_id}, thresholds {found.thresholds}")
    card, model = workspace.guard(policy.registered_model), options.model or resolve(EMBEDDED, workspace).resolve()
    if options.rounds:
        asked = [
            q.question for q in load_questions(policy.questions, split="evaluation") if q.in_scope and not q.history
        ]
        asked = random.Random(0).sample(asked, 2 * options.clients)
        cost(model, card, questions=asked, clients=options.clients, rounds=options.rounds)
    if options.questions:
        choice = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT)
        rows = load_rows(options.questions, Question).rows
        effect(model, card, questions=rows, choice=choice, workspace=workspace)


if __name__ == "__main__":
    main()
