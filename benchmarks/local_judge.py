"""Rate of the embedded judge on distinct records of 60 tokens, beside what else it could be built on.

python benchmarks/local_judge.py [--records 1500] [--state .ontopic]

All sides read the same records in one run, three times by turns; the best time of each counts. Of the judge, whole
verdicts are timed; of the language model, the least that a probe on it needs: states of question and answer.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from ontopic.config.policy import load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import load_questions
from ontopic.judges.local.judge import LocalJudge
from ontopic.judges.opening import open_judge
from ontopic.models import sentence_encoder
from ontopic.models.loading import EMBEDDED, LanguageModel, load, resolve
from ontopic.records import Record
from ontopic.state.workspace import open_workspace

ROOT = Path(__file__).resolve().parents[1]
TOKENS, QUESTION_TOKENS, LAYERS, ROUNDS = 60, 15, 10, 3


def records(n: int, judge: LocalJudge, *, policy_file: Path) -> list[Record]:
    """Questions and answers of our data, each cut or filled up so that a record has 60 tokens."""
    policy = load_policy(policy_file)
    questions = [q.question for q in load_questions(policy.questions)]
    answers = [q.reference for q in load_questions(policy.questions) if q.reference]
    tokenizer = judge.published.tokenizer

    def of_length(texts: Sequence[str], i: int, *, length: int) -> str:
        ids: list[int] = []
        while len(ids) < length:
            ids += tokenizer(texts[i % len(texts)], add_special_tokens=False)["input_ids"]
            i += 1
        return str(tokenizer.decode(ids[:length]))

    return [
        Record(
            question=of_length(questions, i, length=QUESTION_TOKENS),
            answer=of_length(answers, i, length=TOKENS - QUESTION_TOKENS),
        )
        for i in range(n)
    ]


@torch.inference_mode()
def states(language_model: LanguageModel, texts: Sequence[str], *, batch: int = 64) -> None:
    """Mean states of a language model's first layers, as a probe on it needs them."""
    tokenizer, decoder = language_model.tokenizer, language_model.model.get_decoder()  # type: ignore[operator]
    order = sorted(texts, key=len)
    for start in range(0, len(order), batch):
        inputs = tokenizer(order[start : start + batch], return_tensors="pt", padding=True, add_special_tokens=False)
        decoder(**inputs, use_cache=False).last_hidden_state.mean(1)


def in_fp32(work: Callable[[], Any]) -> None:
    """Run without bf16; a judge keeps what it was first run in."""
    native = sentence_encoder.cpu_multiplies_bfloat16
    sentence_encoder.cpu_multiplies_bfloat16 = lambda: False  # type: ignore[assignment]
    try:
        work()
    finally:
        sentence_encoder.cpu_multiplies_bfloat16 = native


def main() -> None:
    """Print records a second for each side, and the ratio to the judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1500)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--policy", type=Path, default=ROOT / "configs/policies/banking.yaml")
    options = parser.parse_args()
    workspace = open_workspace(options.state)
    settings = LocalJudgeSettings(kind="local")
    judge = cast(
        LocalJudge,
        open_judge(JudgeChoice(settings=settings, prompts=ROOT), load_policy(options.policy), workspace=workspace),
    )
    rows = records(options.records, judge, policy_file=options.policy)
    texts = [*(row.question for row in rows), *(row.answer for row in rows)]
    few = texts[::5]  # of the slow side
    shallow = load(resolve(EMBEDDED, workspace))
    decoder: Any = shallow.model.get_decoder()  # type: ignore[operator]
    decoder.layers = decoder.layers[:LAYERS]
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        "the judge, whole verdicts": (partial(judge.judge, rows), len(rows)),
        "the judge without bf16": (partial(in_fp32, partial(copy.deepcopy(judge).judge, rows)), len(rows)),
        f"{LAYERS} layers of the language model": (partial(states, shallow, few), len(few) // 2),
    }
    best = dict.fromkeys(sides, 0.0)
    for _ in range(ROUNDS):
        for name, (work, n) in sides.items():
            start = time.perf_counter()
            work()
            best[name] = max(best[name], n / (time.perf_counter() - start))
    first = next(iter(best.values()))
    print(f"{len(rows)} distinct records of {TOKENS} tokens, {torch.get_num_threads()} threads")
    for name, found in best.items():
        print(f"{name:<36} {found:7.1f} records/s   {first / found:5.2f} x")


if __name__ == "__main__":
    main()
