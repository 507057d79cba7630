"""How often the embedded judge is right on held-out questions by kind, and its rate beside what else it could be on.

python benchmarks/local_judge.py [--records 1500] [--state .ontopic] [--questions QUESTIONS.jsonl]

Right: is the question in scope, and whole verdicts, each question being answered twice: by the policy's refusal, and by
its reference or, out of scope, by some leak of our labelled records. The scope is not given, and each side reads the
same questions: in their conversation, and without it.

Rate: all sides read the same distinct records of 60 tokens in one run, three times by turns; the best time of each
counts. Of the judge, whole verdicts are timed, on OpenVINO and on PyTorch; of the language model, the least that a
probe on it needs: states of question and answer. In a conversation, each record follows two others. Single: one record
after the other, as a guard judges.

Same verdicts: the labelled records of the evaluation split, on each engine beside OpenVINO in fp32.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings
from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.judges.cards.calibration import calibration_records
from ontopic.judges.cards.card import judge_card
from ontopic.judges.local.judge import LocalJudge
from ontopic.judges.opening import open_judge
from ontopic.models.encoder_engine import OpenVINOEngine, TorchEngine
from ontopic.models.loading import EMBEDDED, LanguageModel, cpu_multiplies_bfloat16, load, resolve
from ontopic.models.sentence_encoder import SentenceEncoder
from ontopic.records import Message, Record
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate

ROOT = Path(__file__).resolve().parents[1]
TOKENS, QUESTION_TOKENS, LAYERS, ROUNDS, SINGLE = 60, 15, 10, 3, 60


def right(judge: LocalJudge, policy: Policy, *, questions: Sequence[Question]) -> None:
    """Print a line a kind: how many questions went unjudged, and of the others the shares that were judged rightly."""
    chance = random.Random(0)
    leaks = [row.answer for row in load_records(policy.records) if row.kind == "leak" and row.in_scope is False]
    answers = [policy.refusal] * len(questions)
    answers += [str(q.reference) if q.in_scope and q.reference else chance.choice(leaks) for q in questions]
    asked = [*questions, *questions]
    labels = [
        LabelledRecord(question=q.question, answer=answer, label="pass" if q.in_scope != refused else "fail")
        for q, answer, refused in zip(asked, answers, [True] * len(questions) + [False] * len(questions), strict=True)
    ]
    in_context = [
        Record(question=q.question, answer=a, messages=tuple(Message.model_validate(m) for m in q.messages))
        for q, a in zip(asked, answers, strict=True)
    ]
    sides = {
        "in context": judge.judge(in_context),
        "alone": judge.judge([record.model_copy(update={"messages": ()}) for record in in_context]),
    }
    print("kind | asked | unjudged | " + " | ".join(f"scope, {side} | verdicts | kappa" for side in sides))
    groups = {kind: [q.kind == kind for q in questions] for kind in dict.fromkeys(q.kind for q in questions)}
    groups |= {"all of a kind": [bool(q.kind) for q in questions]}
    for name, member in groups.items():
        shares, unjudged = [], 0
        for verdicts in sides.values():
            refused = zip(questions, verdicts[: len(questions)], member, strict=True)
            said = [(q.in_scope, v.in_scope) for q, v, is_one in refused if is_one and not v.cause]
            unjudged = sum(member) - len(said)
            rows = [(row, v) for row, v, is_one in zip(labels, verdicts, member * 2, strict=True) if is_one]
            card = judge_card(judge.id, [row for row, _ in rows], verdicts=[v for _, v in rows])
            shares += [str(rate(sum(a == b for a, b in said), len(said))), str(card.accuracy), str(card.kappa)]
        print(" | ".join([name or "plain", str(sum(member)), str(unjudged), *shares]))


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


def _after(*before: Record, question: str) -> tuple[Message, ...]:
    said = [(role, text) for row in before for role, text in (("user", row.question), ("assistant", row.answer))]
    return tuple(Message.model_validate({"role": role, "content": text}) for role, text in [*said, ("user", question)])


@torch.inference_mode()
def states(language_model: LanguageModel, texts: Sequence[str], *, batch: int = 64) -> None:
    """Mean states of a language model's first layers, as a probe on it needs them."""
    tokenizer, decoder = language_model.tokenizer, language_model.model.get_decoder()  # type: ignore[operator]
    order = sorted(texts, key=len)
    for start in range(0, len(order), batch):
        inputs = tokenizer(order[start : start + batch], return_tensors="pt", padding=True, add_special_tokens=False)
        decoder(**inputs, use_cache=False).last_hidden_state.mean(1)


def on(judge: LocalJudge, engine: type[OpenVINOEngine] | type[TorchEngine], *, bfloat16: bool) -> LocalJudge:
    """The judge with its encoders on one engine."""
    encoders = []
    for encoder in (judge.published, judge.tuned):
        encoders.append(SentenceEncoder(encoder.model, encoder.tokenizer))
        encoders[-1]._engine = engine(encoder.model, bfloat16=bfloat16)
    return replace(judge, published=encoders[0], tuned=encoders[1])


def same_verdicts(judges: dict[str, LocalJudge], policy: Policy) -> None:
    """Print for each judge how many outcomes differ from the first one's, and by how much scores do at most."""
    labelled = calibration_records(policy, "evaluation")
    asked = [row.record(in_scope=None) for row in labelled]
    expected = None
    for name, judge in judges.items():
        found = judge.judge(asked)
        expected = expected or found
        scores = [(a.score, b.score) for a, b in zip(expected, found, strict=True)]
        moved = max(abs(a - b) for a, b in scores if a is not None and b is not None)
        others = sum(a.outcome != b.outcome for a, b in zip(expected, found, strict=True))
        right = sum(row.label == verdict.outcome for row, verdict in zip(labelled, found, strict=True))
        print(f"{name:<36} {others} of {len(asked)} verdicts differ, scores by up to {moved:.4f}; {right} right")


def _one_by_one(judge: LocalJudge, records: Sequence[Record]) -> None:
    for record in records:
        judge.judge([record])


def main() -> None:
    """Print how often the judge is right, then records a second for each side and the ratio to the judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1500)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--policy", type=Path, default=ROOT / "configs/policies/banking.yaml")
    parser.add_argument("--questions", help="others than those of the policy's evaluation split")
    options = parser.parse_args()
    workspace, policy = open_workspace(options.state), load_policy(options.policy)
    choice = JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=ROOT)
    judge = cast(LocalJudge, open_judge(choice, policy, workspace=workspace))
    held_out = load_questions(policy.questions, split="evaluation")
    right(judge, policy, questions=load_questions(options.questions) if options.questions else held_out)
    if not options.records:
        return
    rows = records(options.records, judge, policy_file=options.policy)
    in_conversations = [
        row.model_copy(update={"messages": _after(rows[i - 1], rows[i - 2], question=row.question)})
        for i, row in enumerate(rows)
    ]
    texts = [*(row.question for row in rows), *(row.answer for row in rows)]
    few = texts[::5]  # of the slow side
    shallow = load(resolve(EMBEDDED, workspace))
    decoder: Any = shallow.model.get_decoder()  # type: ignore[operator]
    decoder.layers = decoder.layers[:LAYERS]
    native = cpu_multiplies_bfloat16()
    judges = {"OpenVINO, fp32": on(judge, OpenVINOEngine, bfloat16=False)}
    judges["PyTorch, fp32"] = on(judge, TorchEngine, bfloat16=False)
    if native:
        judges["OpenVINO, bf16"] = on(judge, OpenVINOEngine, bfloat16=True)
        judges["PyTorch, bf16"] = on(judge, TorchEngine, bfloat16=True)
    same_verdicts(judges, policy)
    known = [row.model_copy(update={"in_scope": i % 2 == 0}) for i, row in enumerate(rows)]
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        "the judge, whole verdicts": (partial(judge.judge, rows), len(rows)),
        **{f"the judge on {name}": (partial(each.judge, rows), len(rows)) for name, each in judges.items()},
        "the judge, scope given": (partial(judge.judge, known), len(rows)),
        "the judge in conversations": (partial(judge.judge, in_conversations), len(rows)),
        **{
            f"single, on {name}": (partial(_one_by_one, each, rows[:SINGLE]), len(rows[:SINGLE]))
            for name, each in judges.items()
        },
        f"{LAYERS} layers of the language model": (partial(states, shallow, few), len(few) // 2),
    }
    best = dict.fromkeys(sides, (0.0, 0.0))
    for _ in range(ROUNDS):
        for name, (work, n) in sides.items():
            start, of_cpu = time.perf_counter(), time.process_time()
            work()
            found = n / (time.perf_counter() - start), n / (time.process_time() - of_cpu)
            best[name] = max(best[name][0], found[0]), max(best[name][1], found[1])
    first = next(iter(best.values()))[0]
    print(
        f"{len(rows)} distinct records of {TOKENS} tokens, {torch.get_num_threads()} threads; x: times the first line"
    )
    for name, (rate_of_time, rate_of_cpu) in best.items():
        x = rate_of_time / first
        print(f"{name:<36} {rate_of_time:7.1f} records/s   {x:5.2f} x   {rate_of_cpu:7.1f} records a CPU second")


if __name__ == "__main__":
    main()
