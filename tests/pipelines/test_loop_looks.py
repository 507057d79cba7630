"""Looks at held-out questions in the loop: with a rehearsal and a sealed set, which the small policy has not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from loops import LENIENT, NAME, ROOT, STRICT, new_state, run, write_config

from ontopic.data.labelled import Question, load_questions
from ontopic.data.sealed import question_id, sealed_questions
from ontopic.registry.promotion_record import PromotionRecord

SPLITS = {"evaluation": 560, "calibration": 210}


def with_more_questions(config: Path) -> str:
    """Have the policy of a configuration ask a file of questions that is long enough; returns its path."""
    policy = yaml.safe_load((config.parent / "policy.yaml").read_text())
    rows = load_questions("ontopic:gardening/questions.jsonl")
    for split, n in SPLITS.items():
        for i in range(n):
            text = f"How do I prune rose {split} {i}?" if i % 2 else f"What is {i} plus {len(split)}?"
            reference = "Cut it back in March, above a bud." if i % 2 else None  # the quality test takes two or more
            rows.append(Question(question=text, in_scope=i % 2 == 1, split=split, reference=reference))
    path = config.parent / "questions.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    (config.parent / "policy.yaml").write_text(yaml.safe_dump(policy | {"questions": str(path)}))
    return str(path)


@pytest.mark.slow
def test_rehearsal_look_opening_gate_and_nothing_twice(model_folder: Path, tmp_path: Path) -> None:
    state = new_state(tmp_path, model_folder)
    record = PromotionRecord(state / "promotions.jsonl")
    training = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text())["training"]
    training |= {"max_steps": 4, "batch_size": 2, "save_steps": 1, "max_rejected_tokens": 8, "attempts": 2}
    strict = write_config(tmp_path / "strict", STRICT, training=training)
    with_more_questions(strict)
    refused = run(state, config=strict)
    assert refused.code == 0, refused.err
    assert "a challenger that is not ahead on 2" in refused.out
    assert "Look 1 at held-out questions against this champion" in refused.out
    assert "No look at held-out questions is taken" in refused.out
    assert re.search("FAILED +Rehearsal on calibration questions", refused.out) and "stays a challenger" in refused.out
    kinds = [entry.kind for entry in record.entries(NAME) if entry.kind in ("look", "rehearsal", "opening")]
    assert kinds == ["look", "rehearsal"]
    again = run(state, config=strict)
    assert again.code == 0, again.err
    assert kinds == [entry.kind for entry in record.entries(NAME) if entry.kind in ("look", "rehearsal", "opening")]

    lenient = write_config(tmp_path / "lenient", LENIENT)
    questions = with_more_questions(lenient)
    promoted = run(state, config=lenient)
    assert promoted.code == 0, promoted.err
    assert "Look 2 at held-out questions against this champion" in promoted.out
    assert re.search("passed +Rehearsal on calibration questions", promoted.out)
    assert re.search("passed +Sealed questions", promoted.out) and "is the champion now" in promoted.out
    spent = [entry for entry in record.entries(NAME) if entry.kind in ("look", "opening")]
    assert [entry.kind for entry in spent] == ["look", "look", "opening"]
    look = spent[1]
    asked, sealed = look.facts["questions"], {question_id(question) for question in sealed_questions(questions)}
    assert isinstance(asked, list) and len(asked) == 12 and len(sealed) >= 100 and not sealed & set(map(str, asked))
    (gate,) = [entry for entry in record.gates(NAME) if json.dumps(entry.facts).count(str(look.facts["sample_sha256"]))]
    assert gate.version == look.version
