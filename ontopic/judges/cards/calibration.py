"""Opening the judge that a configuration names, and calibrating it on labelled records."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.config.settings import DeepEvalJudgeSettings, JudgeSettings, LLMJudgeSettings, PanelJudgeSettings
from ontopic.data.labelled import LabelledRecord, Split, load_questions, load_records
from ontopic.data.labels import load_labels
from ontopic.judges.cards.card import JudgeCard, Usage, card_of, judge_card, labels_sha256, policy_sha256
from ontopic.judges.judge import Account, Judge
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import load_template
from ontopic.judges.llm.verdict_cache import VerdictCache
from ontopic.judges.local.judge import load_local_judge, local_judge_id, save_local_judge, train_local_judge
from ontopic.judges.panel import PanelJudge
from ontopic.progress import progress
from ontopic.records import Record, Verdict
from ontopic.state.workspace import Workspace


def open_judge(settings: JudgeSettings, policy: Policy, *, prompts: Path, workspace: Workspace) -> Judge:
    """The judge that the configuration names; a local one is trained on first use and kept in the state folder.

    Args:
        prompts: folder of the judge prompts.

    Raises:
        UserError: labelled data, prompt or key is missing or malformed.
    """
    if isinstance(settings, LLMJudgeSettings):
        template = load_template(prompts / f"{settings.template}.txt", settings.grading)
        return LLMJudge(settings, template, policy=policy, cache=VerdictCache(workspace.verdicts))
    if isinstance(settings, PanelJudgeSettings):
        return PanelJudge(
            settings.rule,
            [open_judge(judge, policy, prompts=prompts, workspace=workspace) for judge in settings.judges],
        )
    if isinstance(settings, DeepEvalJudgeSettings):
        from ontopic.judges.bridges.deepeval import DeepEvalJudge  # an extra, and a second to import

        return DeepEvalJudge(settings, policy)
    # One that needs what was said before it, or is in another language, would teach it wrong.
    questions = [q for q in load_questions(policy.questions) if q.split in ("train", "judge") and not q.kind]
    records = load_records(policy.records, split="train") + load_labels(_labels(policy, workspace), "train")
    folder = workspace.judges / local_judge_id(policy, questions, records=records)
    if not folder.is_dir():
        save_local_judge(train_local_judge(policy, questions, records=records), folder)
    return load_local_judge(folder)


@dataclass(frozen=True)
class Measured:
    """A judge's card, with the labelled records that it was measured on and its verdicts, one a record."""

    card: JudgeCard
    records: list[LabelledRecord]
    verdicts: list[Verdict]


def calibrate(judge: Judge, policy: Policy, *, workspace: Workspace) -> JudgeCard:
    """The judge's card on the calibration split, as ``calibrated`` has it."""
    return calibrated(judge, policy, workspace=workspace).card


def calibrated(judge: Judge, policy: Policy, *, workspace: Workspace) -> Measured:
    """The judge measured on the calibration split.

    Card and verdicts are kept in the state folder, and measured again only where judge, labels or policy have changed,
    or where a record was left unjudged: the server may have been down, and a judge's own cache asks nothing twice.
    """
    records = calibration_records(policy, "calibration", workspace=workspace)
    stem = re.sub(r"[^\w.-]", "_", judge.id)
    card_path, verdicts_path = workspace.judges / f"{stem}.card.json", workspace.judges / f"{stem}.verdicts.jsonl"
    kept = _kept_card(card_path)
    if kept and not kept.unjudged and is_current(kept, judge, policy=policy, records=records):
        verdicts = _kept_verdicts(verdicts_path)
        if len(verdicts) == len(records):
            return Measured(card=kept, records=records, verdicts=verdicts)
    measured = measure(judge, policy, records=records)
    took, took_before = measured.card.usage, kept.usage if kept else None
    if took_before and (took is None or took.records < took_before.records):
        # Most verdicts came from the judge's cache; what they took was measured when they were made.
        measured = replace(measured, card=replace(measured.card, usage=took_before))
    # The card last: it says what the verdicts beside it are of.
    _write(verdicts_path, "".join(json.dumps(asdict(verdict)) + "\n" for verdict in measured.verdicts))
    _write(card_path, json.dumps(measured.card.as_dict(), allow_nan=False))
    return measured


def is_current(card: JudgeCard, judge: Judge, *, policy: Policy, records: Sequence[LabelledRecord]) -> bool:
    """Whether the card is of this very judge, on these labelled records, under this policy; else it is stale."""
    return (card.judge_id, card.labels_sha256, card.policy_sha256) == (
        judge.id,
        labels_sha256(records),
        policy_sha256(policy),
    )


def measure(judge: Judge, policy: Policy, *, records: Sequence[LabelledRecord]) -> Measured:
    """Let the judge judge labelled records, without their labels, and fill in its whole card."""
    before, start = replace(judge.account), time.perf_counter()
    with progress(f"calibration of {judge.id}", len(records), unit="records") as advance:
        verdicts = judge.judge([Record(question=r.question, answer=r.answer) for r in records], advance)
    seconds = time.perf_counter() - start
    judged = sum(verdict.outcome != "unjudged" for verdict in verdicts)
    card = replace(
        judge_card(judge.id, records, verdicts=verdicts),
        usage=_usage(before, judge.account, judged=judged, seconds=seconds),
        measured_at=datetime.now(UTC),
        policy_sha256=policy_sha256(policy),
        agreement=judge.agreement() if isinstance(judge, PanelJudge) else None,
    )
    return Measured(card=card, records=list(records), verdicts=verdicts)


def calibration_records(policy: Policy, split: Split, *, workspace: Workspace) -> list[LabelledRecord]:
    """Labelled records of one split: the policy's, those that follow from its labelled questions, and humans' labels.

    A reference answer to an in-scope question passes and the refusal of one fails; the refusal of an out-of-scope
    question passes.
    """
    records = [record for record in load_records(policy.records, split=split) if record.label]
    for question in load_questions(policy.questions, split=split):
        label = "fail" if question.in_scope else "pass"
        row = {"question": question.question, "in_scope": question.in_scope, "intent": question.intent}
        records.append(LabelledRecord.model_validate({**row, "answer": policy.refusal, "label": label}))
        if question.in_scope and question.reference:
            records.append(LabelledRecord.model_validate({**row, "answer": question.reference, "label": "pass"}))
    return records + load_labels(_labels(policy, workspace), split)


def _labels(policy: Policy, workspace: Workspace) -> Path:
    return workspace.labels / f"{policy.name}.jsonl"


def _usage(before: Account, after: Account, *, judged: int, seconds: float) -> Usage | None:
    anew = judged - (after.cached - before.cached)
    if anew <= 0:
        return None
    prompt_tokens = after.prompt_tokens - before.prompt_tokens
    completion_tokens = after.completion_tokens - before.completion_tokens
    usd = None if after.usd is None else after.usd - (before.usd or 0.0)
    if after.requests == before.requests and not prompt_tokens + completion_tokens:
        usd = 0.0
    scale = 1000 / anew
    dollars = None if usd is None else usd * scale
    return Usage(
        records=anew,
        seconds=seconds * scale,
        usd=dollars,
        prompt_tokens=prompt_tokens * scale,
        completion_tokens=completion_tokens * scale,
    )


def _kept_card(path: Path) -> JudgeCard | None:
    """The card in a file; ``None`` where there is none, or one that another version of this program wrote."""
    try:
        return card_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _kept_verdicts(path: Path) -> list[Verdict]:
    try:
        return [Verdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError):
        return []


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
