"""The judge card: how good a judge is on labelled records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ontopic.labelled_data import LabelledRecord
from ontopic.records import Verdict
from ontopic.scores import Z95, Rate, rate


@dataclass(frozen=True)
class JudgeCard:
    """A judge against labels.

    Attributes:
        judge_id: whose card it is.
        accuracy: share of judged records with the label's verdict.
        kappa: Cohen's kappa, in [-1, 1], with the large-sample interval of Cohen (1960).
        sensitivity: share of the records labelled pass that the judge passes.
        specificity: share of the records labelled fail that the judge fails.
        unjudged: how many labelled records it could not judge.
    """

    judge_id: str
    accuracy: Rate
    kappa: Rate
    sensitivity: Rate
    specificity: Rate
    unjudged: int

    def as_dict(self) -> dict[str, object]:
        """The card as plain numbers, for JSON."""
        shares = {name: getattr(self, name).as_dict() for name in ("accuracy", "kappa", "sensitivity", "specificity")}
        return {"judge_id": self.judge_id, **shares, "unjudged": self.unjudged}

    def metrics(self) -> dict[str, float]:
        """The card flat, for a tracker: each number as ``name``, ``name_low``, ``name_high`` and ``name_n``."""
        flat = {}
        for name in ("accuracy", "kappa", "sensitivity", "specificity"):
            numbers = asdict(getattr(self, name))
            flat[name] = numbers.pop("value")
            flat |= {f"{name}_{part}": float(number) for part, number in numbers.items()}
        return {name: value for name, value in flat.items() if not math.isnan(value)} | {"unjudged": self.unjudged}

    def __str__(self) -> str:
        lines = [f"{name:<12} {getattr(self, name)}" for name in ("accuracy", "kappa", "sensitivity", "specificity")]
        return "\n".join([f"judge        {self.judge_id}", *lines, f"unjudged     {self.unjudged}"])


def card_of(content: Mapping[str, Any]) -> JudgeCard:
    """The card that ``JudgeCard.as_dict`` wrote."""
    shares = {
        name: Rate(**(value | {"value": math.nan if value["value"] is None else value["value"]}))
        for name, value in content.items()
        if isinstance(value, dict)
    }
    return JudgeCard(judge_id=content["judge_id"], unjudged=content["unjudged"], **shares)


def judge_card(judge_id: str, records: Sequence[LabelledRecord], verdicts: Sequence[Verdict]) -> JudgeCard:
    """Compare verdicts with labels; records without a label, and unjudged ones, count in none of the shares.

    Raises:
        ValueError: records and verdicts are not equally many.
    """
    labelled = [(r.label, v.outcome) for r, v in zip(records, verdicts, strict=True) if r.label is not None]
    judged = [(label == "pass", said == "pass") for label, said in labelled if said != "unjudged"]
    passes = [said for label, said in judged if label]
    fails = [said for label, said in judged if not label]
    return JudgeCard(
        judge_id=judge_id,
        accuracy=rate(sum(label == said for label, said in judged), len(judged)),
        kappa=_kappa(judged),
        sensitivity=rate(sum(passes), len(passes)),
        specificity=rate(sum(not said for said in fails), len(fails)),
        unjudged=len(labelled) - len(judged),
    )


def _kappa(judged: Sequence[tuple[bool, bool]]) -> Rate:
    n = len(judged)
    if n == 0:
        return Rate(math.nan, -1.0, 1.0, 0)
    agreed = sum(label == said for label, said in judged) / n
    label_share, said_share = sum(a for a, _ in judged) / n, sum(b for _, b in judged) / n
    by_chance = label_share * said_share + (1 - label_share) * (1 - said_share)
    if by_chance == 1.0:
        return Rate(math.nan, -1.0, 1.0, n)
    value = (agreed - by_chance) / (1 - by_chance)
    error = Z95 * math.sqrt(agreed * (1 - agreed) / n) / (1 - by_chance)
    return Rate(value, max(-1.0, value - error), min(1.0, value + error), n)
