"""How far answers move when an adapter that was trained in NF4 is merged, by what it is merged into.

python benchmarks/nf4_merging.py [--questions 100] [--pairs 240] [--tokens 24] [--state .ontopic]

The embedded model is trained in NF4 on pairs as the loop makes them. Against that model with its adapter beside it, as
it was trained, stand: the adapter merged in bfloat16 on the dequantised base, as we do; on the weights that the 4 bits
were made of; and, as PEFT does by itself, into weights of 4 bits anew. Then our merged model is brought to 4 bits once
more, as the second round of training does. For each: the share of greedy answers to held-out questions that are word
for word the same (Wilson's interval), and Kullback-Leibler's divergence at the tokens of written answers, in nats.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from peft import PeftModel

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import Question, load_questions
from ontopic.models.chat_template import chat_prompts
from ontopic.models.generation import generate
from ontopic.models.loading import EMBEDDED, LanguageModel, load, resolve
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate
from ontopic.training.merging import merge
from ontopic.training.orpo import train_orpo
from ontopic.training.preferences import Preference

ROOT = Path(__file__).resolve().parents[1]


def pairs_of(questions: list[Question], refusal: str, n: int) -> list[Preference]:
    """So many pairs, half of them in scope: the written answer or the refusal is chosen, the other rejected."""
    inside = [q for q in questions if q.in_scope and q.reference]
    outside = [q for q in questions if not q.in_scope]
    answers = [str(q.reference) for q in inside]
    made = []
    for number in range(n // 2):
        good, bad = inside[number % len(inside)], outside[number % len(outside)]
        made += [
            Preference(question=q.question, chosen=c, rejected=r, in_scope=q is good, source="", record_id="")
            for q, c, r in ((good, str(good.reference), refusal), (bad, refusal, answers[number % len(answers)]))
        ]
    return made


@torch.inference_mode()
def log_probs(model: LanguageModel, questions: list[Question]) -> list[torch.Tensor]:
    """For each question's written answer the distributions at its tokens, each of shape (tokens, vocabulary)."""
    prompts = chat_prompts(model.tokenizer, [q.messages for q in questions])
    found = []
    for question, prompt in zip(questions, prompts, strict=True):
        asked, answer = (
            model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, question.reference)
        )
        logits = model.model(torch.tensor([asked + answer], device=model.model.device)).logits[0, len(asked) - 1 : -1]
        found.append(logits.float().log_softmax(-1).cpu())
    return found


def divergence(trained: list[torch.Tensor], other: list[torch.Tensor]) -> tuple[float, float]:
    """Mean over tokens of the divergence of ``other`` from ``trained``, and the share of other likeliest tokens."""
    pairs = list(zip(trained, other, strict=True))
    nats = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs])
    moved = torch.cat([p.argmax(-1) != q.argmax(-1) for p, q in pairs])
    return float(nats.mean()), float(moved.float().mean())


def main() -> None:
    """Train, merge in each way, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--pairs", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    options = parser.parse_args()
    policy, settings = load_policy(ROOT / "configs/policies/banking.yaml"), load_settings(ROOT / "configs/local.yaml")
    base = resolve(EMBEDDED, open_workspace(options.state))
    pairs = pairs_of(load_questions(policy.questions, split="train"), policy.refusal, options.pairs)
    held_out = [q for q in load_questions(policy.questions, split="evaluation") if not q.kind]
    asked = held_out[:: max(1, len(held_out) // options.questions)][: options.questions]
    written = [q for q in asked if q.reference]
    training = settings.training.model_copy(update={"batch_size": 8, "optimizer": "paged_adamw_8bit"})
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        adapter = train_orpo(load(base, "nf4"), base, preferences=pairs, settings=training, work=work).adapter

        def beside() -> LanguageModel:
            model = load(base, "nf4")
            return LanguageModel(PeftModel.from_pretrained(model.model, str(adapter)).eval(), model.tokenizer)

        def into_4_bits() -> LanguageModel:
            model = beside()
            return LanguageModel(model.model.merge_and_unload().eval(), model.tokenizer)

        merge(adapter, base, into=work / "dequantised", precision="nf4")
        merge(adapter, base, into=work / "original", precision="bfloat16")
        sides = {
            "adapter beside 4 bits, as trained": beside,
            "merged in bfloat16 on the dequantised base (ours)": lambda: load(work / "dequantised", "bfloat16"),
            "merged on the weights that the 4 bits were made of": lambda: load(work / "original", "bfloat16"),
            "merged into 4 bits anew (PEFT's own)": into_4_bits,
            "ours, brought to 4 bits for a second round": lambda: load(work / "dequantised", "nf4"),
        }
        trained: tuple[list[str], list[torch.Tensor]] | None = None
        print(f"{len(asked)} questions, {len(written)} written answers, {len(pairs)} pairs trained on")
        print("model | same answers as trained | divergence, nats a token | other likeliest token")
        for name, opened in sides.items():
            model = opened()
            said = generate(model, [q.messages for q in asked], max_new_tokens=options.tokens)
            texts, spread = [each.text for each in said], log_probs(model, written)
            trained = trained or (texts, spread)
            same = rate(sum(a == b for a, b in zip(texts, trained[0], strict=True)), len(texts))
            nats, moved = divergence(trained[1], spread)
            print(f"{name} | {same} | {nats:.5f} | {moved:.3f}", flush=True)


if __name__ == "__main__":
    main()
