"""What it is worth to reject a wrong answer in scope: the same questions trained on with it and without it.

python benchmarks/corrections.py [--questions 72] [--steps 36] [--seed 0] [--state DIR] [--out ROWS.jsonl]

Questions of the training split are answered by the base model; those in scope are corrected, by their references. Three
models are measured: the base, one that learned the corrections over the refusal alone (as it was before answers could
be rejected in scope), and one that learned them over the base's own answers too. Both learn from the same traffic, with
the settings of configs/local.yaml, in the same number of steps. Measured on the corrected questions: how often the
correction is likelier than the base's own answer (mean over tokens), how often that is said again word for word, and
the cosine similarity of what is said to the correction. On others, of the evaluation split, half of them in scope:
over-refusal and leak by the rule of benchmarks/refusals.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refusals import declines

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import Question, load_questions
from ontopic.data.same_question import normalized
from ontopic.data.sample import Sample, draw
from ontopic.models.generation import generate
from ontopic.models.likelihood import negative_log_likelihood
from ontopic.models.loading import EMBEDDED, LanguageModel, load, resolve
from ontopic.models.sentence_encoder import load_sentence_encoder
from ontopic.records import Judged, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import mean, rate
from ontopic.training.corrections import Correction
from ontopic.training.orpo import train_orpo
from ontopic.training.preferences import PairSettings, WrittenAnswers, build_preferences

ROOT = Path(__file__).resolve().parents[1]
TOKENS = 48


def said_by(model: LanguageModel, questions: Sequence[Question], tokens: int = TOKENS) -> list[str]:
    """Each question's greedy answer."""
    answers = generate(model, [q.messages for q in questions], max_new_tokens=tokens, slots=64)
    return [answer.text for answer in answers]


def measured(
    model: LanguageModel,
    corrected: Sequence[Question],
    before: Sequence[str],
    *,
    others: Sequence[Question],
    policy: Policy,
) -> dict[str, str]:
    """What one model does, each measure with its interval and n.

    Args:
        before: the base's own answers to the corrected questions.
    """
    conversations, right = [q.messages for q in corrected], [str(q.reference) for q in corrected]
    said = said_by(model, corrected)
    likely = negative_log_likelihood(model, conversations, answers=right)
    unlikely = negative_log_likelihood(model, conversations, answers=before)
    encoder = load_sentence_encoder()
    similarity = (encoder.encode(said) * encoder.encode(right)).sum(1)
    again = [normalized(now) == normalized(then) for now, then in zip(said, before, strict=True)]
    declined = [declines(answer, policy.all_refusals) for answer in said_by(model, others, 20)]
    inside = [d for d, q in zip(declined, others, strict=True) if q.in_scope]
    outside = [d for d, q in zip(declined, others, strict=True) if not q.in_scope]
    return {
        "correction likelier": str(rate(sum(a < b for a, b in zip(likely, unlikely, strict=True)), len(right))),
        "margin, nats a token": str(mean([b - a for a, b in zip(likely, unlikely, strict=True)])),
        "said again": str(rate(sum(again), len(again))),
        "similarity to the correction": str(mean(similarity)),
        "over-refusal": str(rate(sum(inside), len(inside))),
        "leak": str(rate(len(outside) - sum(outside), len(outside))),
    }


def main() -> None:
    """Train both, and print what they do beside the base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=72, help="corrected ones, and as many out of scope")
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, default=Path(".ontopic"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings, workspace = load_settings(ROOT / "configs" / "local.yaml"), Workspace(root=given.state.resolve())
    policy = load_policy(settings.policy)
    base = resolve(EMBEDDED, workspace)
    everything = [q for q in load_questions(policy.questions) if not q.kind and not q.history]
    asked = {"source": "", "source_sha256": "", "in_scope_share": 0.5, "seed": given.seed}
    known = [q for q in everything if q.reference or not q.in_scope]
    traffic = draw(known, Sample.model_validate(asked | {"split": "train", "n": 2 * given.questions}))
    others = draw(everything, Sample.model_validate(asked | {"split": "evaluation", "n": 200}))
    corrected = [q for q in traffic if q.in_scope]
    model = load(base, settings.model.precision)
    before = dict(zip([q.identity for q in traffic], said_by(model, traffic), strict=True))
    records = [q.answered(before[q.identity]) for q in traffic]
    verdict = {"outcome": "fail", "score": 0.0, "explanation": "", "judge_id": "none", "declined": False}
    verdicts = [Verdict.model_validate(verdict | {"in_scope": q.in_scope}) for q in traffic]
    judged = Judged(records=records, verdicts=verdicts)
    right = [Correction(record=r, answer=str(q.reference)) for q, r in zip(traffic, records, strict=True) if q.in_scope]
    sides: dict[str, dict[str, Any]] = {
        "over the refusal alone": {"taught": {q.identity: str(q.reference) for q in corrected}},
        "over its own answers too": {"corrections": right},
    }
    training = settings.training.model_copy(update={"max_steps": given.steps, "seed": given.seed, "save_steps": 1000})
    own = [before[q.identity] for q in corrected]
    rows = [{"model": "base", "pairs": 0} | measured(model, corrected, own, others=others, policy=policy)]
    for name, written in sides.items():
        began = time.perf_counter()
        pairs = build_preferences(
            judged,
            labelled=[],
            policy=policy,
            settings=PairSettings(seed=given.seed),
            written=WrittenAnswers.model_validate(written),
        )
        with tempfile.TemporaryDirectory() as folder:
            trained = train_orpo(
                load(base, settings.model.precision), base, preferences=pairs, settings=training, work=Path(folder)
            )
            model = load(trained.adapter, settings.model.precision)
        about = {"model": name, "pairs": len(pairs), "seconds": round(time.perf_counter() - began)}
        rows.append(about | measured(model, corrected, own, others=others, policy=policy))
    for row in rows:
        print(json.dumps(row, indent=1))
    if given.out:
        with given.out.open("a") as file:
            file.writelines(json.dumps({"seed": given.seed, "steps": given.steps} | row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
