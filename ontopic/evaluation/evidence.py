"""What the registry keeps of a decision, as tags of the challenger's version, for an auditor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.config.settings import Settings
from ontopic.evaluation.gate import Decision
from ontopic.judges.cards.card import JudgeCard
from ontopic.statistics.scores import SHARES

_GROUPS = {"attempt": "training", "trained_by": "training", "look": "gate", "alpha": "gate"} | dict.fromkeys(
    ("policy_sha256", "questions_sha256", "sample_sha256", "seed"), "data"
)


class Evidence(BaseModel):
    """What an auditor is told of an attempt besides the gate's decision.

    Attributes:
        policy_sha256: of the whole policy.
        questions_sha256: of the labelled questions.
        attempt: its number, where there may be several: how many challengers the gate has seen.
        trained_by: who started the loop or `watch` that trains the challenger.
        at: the time of a promotion, where it is not the present one.
        look: how often this policy's gates have looked at held-out questions, this time counted.
        alpha: the two-sided level of this look's test of improvement.
        seed: of the draw of the gate's questions.
        sample_sha256: of the questions that were drawn.
        settings: those of model, training and evaluation.
    """

    model_config = ConfigDict(frozen=True)
    policy_sha256: str
    questions_sha256: str
    attempt: int | None = None
    trained_by: str | None = None
    at: datetime | None = None
    look: int | None = None
    alpha: float | None = None
    seed: int | None = None
    sample_sha256: str = ""
    settings: dict[str, JsonValue] = {}

    def with_settings(self, settings: Settings) -> Evidence:
        """This evidence of an attempt that is made by these settings."""
        kept = settings.model_dump(mode="json", include={"model", "training", "evaluation"})
        return self.model_copy(update={"settings": kept})

    def tags(self) -> dict[str, str]:
        """What is known, by a name that begins with what it is of."""
        known = self.model_dump(mode="json", exclude={"at", "settings"}, exclude_none=True)
        return {f"ontopic.{_GROUPS[name]}.{name}": str(value) for name, value in known.items() if value != ""}


def gate_tags(
    decision: Decision, card: JudgeCard, *, champion: str, weights_sha256: str, evidence: Evidence
) -> dict[str, str]:
    """Tags by name, in groups for MLflow's page: ``ontopic.gate``, ``ontopic.data``, ``ontopic.training``; shares as
    JSON of four decimals. The promotion record holds all of it to the last digit.

    Args:
        card: of the judge that the decision goes by.
        champion: the version that the challenger was held against.
        weights_sha256: of the challenger's weights.
        evidence: of the attempt; what is ``None`` gets no tag.

    Raises:
        OSError: the decision's page can't be read.
    """
    said = decision.model_dump(mode="json")
    failed = [test.name for test in decision.tests if not test.passed]
    tests = f"{len(decision.tests) - len(failed)} of {len(decision.tests)} passed"
    return {
        "ontopic.gate": "passed" if decision.passed else "failed",
        "ontopic.gate.tests": "; failed: ".join([tests, *([", ".join(failed)] if failed else [])]),
        "ontopic.gate.champion": champion,
        "ontopic.gate.judge": card.judge_id,
        "ontopic.gate.report_sha256": hashlib.sha256(decision.report.read_bytes()).hexdigest(),
        "ontopic.gate.weights_sha256": weights_sha256,
        **evidence.tags(),
        **{f"ontopic.gate.{name}": _rounded(said["challenger"][name]) for name in SHARES},
        "ontopic.gate.improvement": _rounded(said["comparison"]),
    }


def _rounded(numbers: Mapping[str, JsonValue]) -> str:
    """As JSON, with floats to four decimals, or to two digits where they are smaller than those."""
    return json.dumps(
        {
            key: float(f"{each:.4f}" if abs(each) >= 1e-3 else f"{each:.1e}") if isinstance(each, float) else each
            for key, each in numbers.items()
        }
    )
