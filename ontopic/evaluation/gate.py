"""The gate: may the challenger take the champion's place?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import GateLimits, Policy
from ontopic.errors import UserError
from ontopic.evaluation.quality import Quality, difference, preference
from ontopic.judges.cards.card import JudgeCard, criteria_sha256
from ontopic.reports.metrics import TestOutcome, gate_report, verdicts_of
from ontopic.statistics.pairs import Comparison, compare
from ontopic.statistics.rates import Rate
from ontopic.statistics.scores import Scores, score


class Decision(BaseModel):
    """What the gate decided and on what.

    Attributes:
        passed: whether every test passed.
        comparison: champion and challenger question by question.
        quality: by how much answers in scope became more like their references.
        preference: by how much a judge that is an LLM prefers the challenger's answers in scope; ``None`` of any other.
        report: Evidently's page.
    """

    model_config = ConfigDict(frozen=True)
    passed: bool
    tests: list[TestOutcome]
    champion: Scores
    challenger: Scores
    comparison: Comparison
    quality: Rate
    preference: Rate | None
    limits: GateLimits
    report: Path

    def as_dict(self) -> dict[str, Any]:
        """The decision as plain values, for JSON."""
        return {
            "passed": self.passed,
            "tests": [test.model_dump(mode="json") for test in self.tests],
            "champion": self.champion.model_dump(mode="json"),
            "challenger": self.challenger.model_dump(mode="json"),
            "comparison": self.comparison.model_dump(mode="json"),
            "quality": self.quality.model_dump(mode="json"),
            "preference": self.preference.model_dump(mode="json") if self.preference else None,
            "limits": self.limits.model_dump(),
            "report": str(self.report),
        }


def check_judge(card: JudgeCard, policy: Policy) -> None:
    """Let the judge's verdicts decide on a promotion only where its card is fresh and good enough.

    Raises:
        UserError: the policy has changed since the card was measured, or a lower bound is under the policy's bar.
    """
    if card.criteria_sha256 != criteria_sha256(policy):
        raise UserError(
            f"the card of judge {card.judge_id} is stale: policy {policy.name!r} has changed since it was measured; "
            "measure it again with `python run.py calibrate`"
        )
    for name in ("accuracy", "kappa"):
        share, bar = getattr(card, name), getattr(policy.judge_bar, name)
        if share.n == 0 or not share.low >= bar:
            raise UserError(
                f"judge {card.judge_id} may not gate: its {name} is {share}, and the lower bound must reach {bar:g} "
                f"(judge_bar of policy {policy.name!r}); label more records with `python run.py label`, "
                "or configure a better judge"
            )


def decide(
    title: str,
    champion: pd.DataFrame,
    *,
    challenger: pd.DataFrame,
    champion_quality: Quality,
    challenger_quality: Quality,
    winners: Sequence[str],
    policy: Policy,
    card: JudgeCard,
    report: Path,
) -> Decision:
    """Run the gate's tests with Evidently on the two models' judged answers to the same questions.

    Args:
        champion, challenger: as ``reports.verdict_frame`` gives them, in the same order.
        winners: as ``quality.preference`` takes them; none where the judge is no LLM.
        card: of the judge that gave these verdicts.

    Raises:
        UserError: the judge may not gate: its card is under the policy's bar, stale, or another judge's.
        ValueError: the questions differ.
    """
    check_judge(card, policy)
    if others := sorted({*champion["judge_id"], *challenger["judge_id"]} - {card.judge_id}):
        raise UserError(
            f"the card of judge {card.judge_id} is stale: these verdicts are by {others[0]}, whose template, model or "
            "settings differ; measure it with `python run.py calibrate`"
        )
    limits = policy.gate
    before, after = verdicts_of(champion), verdicts_of(challenger)
    compared, preferred = compare(before, after), preference(winners) if winners else None
    tests = gate_report(
        title,
        champion,
        challenger=challenger,
        champion_verdicts=before,
        challenger_verdicts=after,
        champion_quality=champion_quality,
        challenger_quality=challenger_quality,
        preference=preferred,
        limits=limits,
        out=report,
    )
    passed = all(test.passed for test in tests)
    quality = difference(champion_quality, challenger_quality)
    return Decision(
        passed=passed,
        tests=tests,
        champion=score(before),
        challenger=score(after),
        comparison=compared,
        quality=quality,
        preference=preferred,
        limits=limits,
        report=report,
    )
