"""The engines in one process: tokens/s of each with so many answers at once, and how like the answers are.

python benchmarks/generation.py [--model FOLDER] [--at-once 1,4,16,64] [--precisions auto,float32,int8,int4]
    [--questions 64] [--torch] [--state .ontopic]

Questions of the policy's evaluation split, greedily, up to 40 tokens. Each number of answers at once is a fresh batch
that gets as many questions. Both sides of a row take turns in one process, and each is warm. `--torch` adds PyTorch's
static batches, which answer where OpenVINO can't. Likeness is the share of answers that are, word for word, those of
float32.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ontopic.config.model_settings import Precision
from ontopic.config.policy import load_policy
from ontopic.data.labelled import load_questions
from ontopic.models.answer import Generated
from ontopic.models.generation import generate
from ontopic.models.loading import EMBEDDED, LanguageModel, load, open_model, resolve
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 40


def timed(model: LanguageModel, questions: list[str]) -> tuple[list[Generated], float]:
    """Answers that are generated together, and their tokens a second."""
    start = time.perf_counter()
    conversations = [[{"role": "user", "content": question}] for question in questions]
    answers = generate(model, conversations, max_new_tokens=TOKENS, slots=len(questions))
    return answers, sum(answer.completion_tokens for answer in answers) / (time.perf_counter() - start)


def main() -> None:
    """Measure all engines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--at-once", default="1,4,16,64")
    parser.add_argument("--precisions", default="auto,float32,int8,int4")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    arguments = parser.parse_args()
    folder = arguments.model or resolve(EMBEDDED, open_workspace(arguments.state))
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    asked = [q.question for q in load_questions(policy.questions, split="evaluation") if not q.history]
    sides: dict[str, LanguageModel] = {}
    for name in arguments.precisions.split(","):
        precision: Precision = name
        sides[f"OpenVINO, {name}"] = open_model(folder, precision)
    if arguments.torch:
        weights = load(folder)
        sides["PyTorch, auto"] = LanguageModel(weights.model, weights.tokenizer)
    for model in sides.values():
        timed(model, asked[-2:])
    print("engine | " + " | ".join(f"tokens/s, {n} at once" for n in arguments.at_once.split(",")))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for n in map(int, arguments.at_once.split(",")):
        for name, model in sides.items():
            rates[name].append(max(timed(model, asked[:n])[1] for _ in range(2)))
    for name, of in rates.items():
        print(f"{name} | " + " | ".join(f"{each:.0f}" for each in of))
    exact = timed(open_model(folder, "float32"), asked[: arguments.questions])[0]
    for name, model in sides.items():
        same = [a.text == b.text for a, b in zip(timed(model, asked[: arguments.questions])[0], exact, strict=True)]
        print(f"{name}: the same answers as in float32: {rate(sum(same), len(same))}")


if __name__ == "__main__":
    main()
