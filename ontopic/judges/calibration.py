"""Opening the judge that a configuration names, and calibrating it on labelled records."""

from __future__ import annotations

import json
from pathlib import Path

from ontopic.judges.card import JudgeCard, card_of, judge_card
from ontopic.judges.judge import Judge
from ontopic.judges.llm import LLMJudge, load_template
from ontopic.judges.local import load_local_judge, local_judge_id, save_local_judge, train_local_judge
from ontopic.labelled_data import LabelledRecord, Split, load_questions, load_records
from ontopic.models import EMBEDDED, digest, load, resolve
from ontopic.policy import Policy
from ontopic.progress import progress
from ontopic.records import Record
from ontopic.settings import JudgeSettings, LLMJudgeSettings
from ontopic.workspace import Workspace


def open_judge(settings: JudgeSettings, policy: Policy, prompts: Path, workspace: Workspace) -> Judge:
    """The judge that the configuration names; a local one is trained on first use and kept in the state folder.

    Args:
        prompts: folder of the judge prompts.

    Raises:
        UserError: labelled data, prompt or key is missing or malformed.
    """
    if isinstance(settings, LLMJudgeSettings):
        return LLMJudge(settings, load_template(prompts / f"{settings.template}.txt"), policy)
    base = resolve(EMBEDDED, workspace.root)
    questions = load_questions(policy.questions, split="train")
    records = load_records(policy.records, split="train")
    folder = workspace.judges / local_judge_id(digest(base), policy, questions, records)
    if not folder.is_dir():
        save_local_judge(train_local_judge(load(base), policy, questions, records), folder)
    return load_local_judge(folder, base)


def calibrate(judge: Judge, policy: Policy, workspace: Workspace) -> JudgeCard:
    """The judge's card on the calibration split; kept in the state folder and not measured twice."""
    path = workspace.judges / f"{judge.id.replace('/', '_')}.card.json"
    if path.is_file():
        return card_of(json.loads(path.read_text(encoding="utf-8")))
    records = calibration_records(policy, "calibration")
    with progress(f"calibration of {judge.id}", len(records), "records") as advance:
        verdicts = judge.judge([Record(r.question, r.answer) for r in records], advance)
    card = judge_card(judge.id, records, verdicts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(card.as_dict()), encoding="utf-8")
    part.replace(path)
    return card


def calibration_records(policy: Policy, split: Split) -> list[LabelledRecord]:
    """Labelled records of one split, with those that follow from its labelled questions.

    A reference answer to an in-scope question passes and the refusal of one fails; the refusal of an out-of-scope
    question passes.
    """
    records = load_records(policy.records, split=split)
    for question in load_questions(policy.questions, split=split):
        label = "fail" if question.in_scope else "pass"
        row = {"question": question.question, "in_scope": question.in_scope}
        records.append(LabelledRecord.model_validate({**row, "answer": policy.refusal, "label": label}))
        if question.in_scope and question.reference:
            records.append(LabelledRecord.model_validate({**row, "answer": question.reference, "label": "pass"}))
    return records
