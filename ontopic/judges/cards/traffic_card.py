"""How a judge errs on real traffic: its verdicts on records that were drawn at random and that a person labelled.

Records made of templates say whether a judge may gate at all. They don't say how often it errs on traffic, whose
answers are others: only labelled traffic does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.data.labels import LabelStore, TrafficLabel, labels_of
from ontopic.judges.cards.card import JudgeCard, criteria_sha256, judge_card
from ontopic.judges.judge import Judge
from ontopic.progress import progress
from ontopic.records import Verdict
from ontopic.state.workspace import Workspace

LEAST_LABELS = 200
"""Fewer labels correct nothing. With 200, where one record in ten is bad, specificity rests on 20 and the corrected
score is known to some 0.15; with half of them the interval says little more than that the score is high."""
_FIRST = datetime.min.replace(tzinfo=UTC)


class TrafficLabels(BaseModel):
    """Labelled records of one policy's traffic that were drawn at random, and a judge's verdict on each.

    Attributes:
        judge_id: whose verdicts these are; empty where there is no label.
    """

    model_config = ConfigDict(frozen=True)
    judge_id: str = ""
    records: list[TrafficLabel] = []
    verdicts: list[Verdict] = []

    def of(self, model_version: str) -> list[tuple[TrafficLabel, Verdict]]:
        """Those that say how the judge errs on a version's traffic.

        All of that version. Where they are fewer than ``LEAST_LABELS``, the newest of other versions fill them up.
        """
        judged = [
            (record, verdict)
            for record, verdict in zip(self.records, self.verdicts, strict=True)
            if verdict.outcome != "unjudged"
        ]
        own = [pair for pair in judged if pair[0].model_version == model_version]
        others = [pair for pair in judged if pair[0].model_version != model_version]
        others.sort(key=lambda pair: pair[0].asked_at or _FIRST, reverse=True)
        return own + others[: max(0, LEAST_LABELS - len(own))]

    def card(self, model_version: str) -> JudgeCard | None:
        """The judge's card on a version's traffic; ``None`` where there are fewer than ``LEAST_LABELS`` labels."""
        pairs = self.of(model_version)
        if len(pairs) < LEAST_LABELS:
            return None
        records = [record for record, _ in pairs]
        card = judge_card(self.judge_id, records, verdicts=[verdict for _, verdict in pairs])
        return card.model_copy(update={"origin": "traffic"})


def labelled_traffic(policy: Policy, workspace: Workspace, *, judge: Callable[[], Judge]) -> TrafficLabels:
    """The labelled traffic of a policy with a judge's verdicts, which are kept in the state folder.

    Args:
        judge: opens it; called only where there are labels.

    Raises:
        UserError: the labels cannot be read.
    """
    records = [row for row in LabelStore(labels_of(policy, workspace)).labels() if row.is_of_traffic]
    if not records:
        return TrafficLabels()
    opened = judge()
    stem = re.sub(r"[^\w.-]", "_", opened.id)
    path = workspace.judges / f"{stem}.traffic.json"
    kept = _kept(path, workspace, criteria=criteria_sha256(policy))
    missing = [row for row in records if row.record_id not in kept or kept[row.record_id].outcome == "unjudged"]
    if missing:
        with progress("verdicts on labelled traffic", len(missing), unit="records") as advance:
            # Without the labelled scope: the judge of a window doesn't know it either.
            said = opened.judge([row.record() for row in missing], advance)
        kept |= {row.record_id: verdict for row, verdict in zip(missing, said, strict=True)}
        rows = {row.record_id: kept[row.record_id].model_dump(mode="json") for row in records}
        workspace.files.write(path, json.dumps({"criteria": criteria_sha256(policy), "verdicts": rows}).encode())
    return TrafficLabels(judge_id=opened.id, records=records, verdicts=[kept[row.record_id] for row in records])


def _kept(path: Path, workspace: Workspace, *, criteria: str) -> dict[str, Verdict]:
    """The verdicts by record; none where the file is of other criteria, or of another version of this program."""
    try:
        found = json.loads(workspace.files.read(path))
        if found["criteria"] != criteria:
            return {}
        return {i: Verdict.model_validate(verdict) for i, verdict in found["verdicts"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
