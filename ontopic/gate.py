"""The gate: may the challenger take the champion's place?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ontopic.monitoring import scores_as_dict
from ontopic.policy import GateLimits
from ontopic.reports import TestOutcome, gate_report, verdicts_of
from ontopic.scores import Comparison, Scores, compare, score


@dataclass(frozen=True)
class Decision:
    """What the gate decided and on what.

    Attributes:
        passed: whether every test passed.
        comparison: champion and challenger question by question.
        report: Evidently's page.
    """

    passed: bool
    tests: list[TestOutcome]
    champion: Scores
    challenger: Scores
    comparison: Comparison
    limits: GateLimits
    report: Path

    def as_dict(self) -> dict[str, Any]:
        """The decision as plain values, for JSON."""
        return {
            "passed": self.passed,
            "tests": [asdict(test) for test in self.tests],
            "champion": scores_as_dict(self.champion),
            "challenger": scores_as_dict(self.challenger),
            "comparison": asdict(self.comparison),
            "limits": self.limits.model_dump(),
            "report": str(self.report),
        }


def decide(title: str, champion: pd.DataFrame, challenger: pd.DataFrame, limits: GateLimits, report: Path) -> Decision:
    """Run the gate's tests with Evidently on the two models' judged answers to the same questions.

    Args:
        champion, challenger: as ``reports.verdict_frame`` gives them, in the same order.

    Raises:
        ValueError: the questions differ.
    """
    before, after = verdicts_of(champion), verdicts_of(challenger)
    tests = gate_report(title, champion, challenger, before, after, limits, report)
    passed = all(test.passed for test in tests)
    return Decision(passed, tests, score(before), score(after), compare(before, after), limits, report)
