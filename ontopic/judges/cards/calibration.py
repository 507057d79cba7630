"""Measuring a judge on labelled records, and keeping its card."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.data.labelled import LabelledRecord, Split, load_questions, load_records
from ontopic.data.language import refusal_to
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.cards.card import JudgeCard, Usage, criteria_sha256, judge_card, labels_sha256
from ontopic.judges.judge import Judge, agreement_of
from ontopic.progress import progress
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace

_MORE = 2  # times as many records measure anew what judging takes


class Measured(BaseModel):
    """A judge's card, with the labelled records that it was measured on and its verdicts, one a record."""

    model_config = ConfigDict(frozen=True)
    card: JudgeCard
    records: list[LabelledRecord]
    verdicts: list[Verdict]


def card_of(judge: Judge, policy: Policy, *, workspace: Workspace) -> JudgeCard:
    """The judge's card on the calibration split as on traffic: it isn't told the scope. See ``kept_or_measured``."""
    return kept_or_measured(judge, policy, workspace=workspace).card


def gate_card_of(judge: Judge, policy: Policy, *, workspace: Workspace) -> JudgeCard:
    """The judge's card on the calibration split as in the gate: it is told the scope. See ``kept_or_measured``."""
    return kept_or_measured(judge, policy, workspace=workspace, scope_given=True).card


def kept_or_measured(judge: Judge, policy: Policy, *, workspace: Workspace, scope_given: bool = False) -> Measured:
    """The judge measured on the calibration split.

    Card and verdicts are kept in the state folder, and measured again only where judge, labels or policy have changed,
    or where a record was left unjudged: the server may have been down, and a judge's own cache asks nothing twice.

    Args:
        scope_given: see ``measure``.
    """
    records = calibration_records(policy, "calibration")
    if scope_given:
        records = with_scope(records, of=f"the calibration split of policy {policy.name!r}")
    stem = _stem(judge.id) + (".scope-given" if scope_given else "")
    card_path, verdicts_path = workspace.judges / f"{stem}.card.json", workspace.judges / f"{stem}.verdicts.jsonl"
    kept = _kept_card(card_path, workspace)
    if kept and not kept.unjudged and is_current(kept, judge, policy=policy, records=records):
        verdicts = _kept_verdicts(verdicts_path, workspace)
        if len(verdicts) == len(records):
            return Measured(card=kept, records=records, verdicts=verdicts)
    measured = measure(judge, policy, records=records, scope_given=scope_given)
    took, took_before = measured.card.usage, kept.usage if kept else None
    if took_before and (took is None or took.records < _MORE * took_before.records):
        # What judging takes is the judge's, whatever is labelled since: one figure, and not that of a machine which is
        # busier today, or of the few verdicts that no cache held.
        card = measured.card.model_copy(update={"usage": took_before})
        measured = measured.model_copy(update={"card": card})
    # The card last: it says what the verdicts beside it are of.
    verdicts_json = "".join(f"{verdict.model_dump_json()}\n" for verdict in measured.verdicts)
    workspace.files.write(verdicts_path, verdicts_json.encode())
    workspace.files.write(card_path, measured.card.model_dump_json().encode())
    return measured


def kept_card(judge: Judge, policy: Policy, *, workspace: Workspace) -> JudgeCard | None:
    """The judge's card on the calibration split, not told the scope, where one is kept that is current.

    Nothing is judged.
    """
    card = _kept_card(workspace.judges / f"{_stem(judge.id)}.card.json", workspace)
    records = calibration_records(policy, "calibration") if card else []
    return card if card and is_current(card, judge, policy=policy, records=records) else None


def _stem(judge_id: str) -> str:
    return re.sub(r"[^\w.-]", "_", judge_id)


def is_current(card: JudgeCard, judge: Judge, *, policy: Policy, records: Sequence[LabelledRecord]) -> bool:
    """Whether the card is of this very judge, on these labelled records, under this policy; else it is stale."""
    return (card.judge_id, card.labels_sha256, card.criteria_sha256) == (
        judge.id,
        labels_sha256(records),
        criteria_sha256(policy),
    )


def with_scope(records: Sequence[LabelledRecord], *, of: str) -> list[LabelledRecord]:
    """The records of which it is known whether their question is in scope.

    Args:
        of: what the records are, in words.

    Raises:
        UserError: there is none.
    """
    known = [record for record in records if record.in_scope is not None]
    if not known:
        raise UserError(
            f"no labelled record of {of} says whether its question is in scope, which the gate tells the judge; "
            "give them the field 'in_scope', or add questions to the split"
        )
    return known


def measure(judge: Judge, policy: Policy, *, records: Sequence[LabelledRecord], scope_given: bool = False) -> Measured:
    """Let the judge judge labelled records, without their labels, and fill in its whole card.

    Args:
        scope_given: whether it is told of each question whether it is in scope, as in the gate.
    """
    before, start = replace(judge.account), time.perf_counter()
    with progress(f"calibration of {judge.id}", len(records), unit="records") as advance:
        asked = [record.record(in_scope=record.in_scope if scope_given else None) for record in records]
        verdicts = judge.judge(asked, advance)
    seconds = time.perf_counter() - start
    judged = sum(verdict.outcome != "unjudged" for verdict in verdicts)
    measured = {
        "usage": _usage(before, judge.account, judged=judged, seconds=seconds),
        "measured_at": datetime.now(UTC),
        "criteria_sha256": criteria_sha256(policy),
        "agreement": None if scope_given else agreement_of(judge),  # which counts all that was judged before, too
        "scope_given": scope_given,
    }
    card = judge_card(judge.id, records, verdicts=verdicts).model_copy(update=measured)
    return Measured(card=card, records=list(records), verdicts=verdicts)


def calibration_records(policy: Policy, split: Split) -> list[LabelledRecord]:
    """Labelled records of one split: the policy's, and those that follow from its labelled questions.

    They say whether a judge may gate. How it errs on traffic, ``traffic_card`` has from labels of traffic.

    A reference answer to an in-scope question passes and the refusal of one fails; the refusal of an out-of-scope
    question passes.

    Raises:
        UserError: there is none.
    """
    records = [row for row in load_records(policy.records, split=split, questions=policy.questions) if row.label]
    for question in load_questions(policy.questions, split=split, languages=policy.languages):
        label = "fail" if question.in_scope else "pass"
        intent = question.intent
        refusal = refusal_to(policy, question.question)
        records.append(LabelledRecord.of(question.answered(refusal), label=label, intent=intent))
        if question.in_scope and question.reference:
            records.append(LabelledRecord.of(question.answered(question.reference), label="pass", intent=intent))
    if not records:
        raise UserError(
            f"the {split} split of policy {policy.name!r} has 0 labelled records and 0 questions, and a judge's card "
            "needs 1 that passes and 1 that fails at least; add some, or give some this split"
        )
    return records


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


def _kept_card(path: Path, workspace: Workspace) -> JudgeCard | None:
    """The card in a file; ``None`` where there is none, or one that another version of this program wrote."""
    try:
        return JudgeCard.model_validate_json(workspace.files.read(path))
    except (OSError, ValueError):
        return None


def _kept_verdicts(path: Path, workspace: Workspace) -> list[Verdict]:
    try:
        return [Verdict.model_validate_json(line) for line in workspace.files.read(path).splitlines()]
    except (OSError, ValueError):
        return []
