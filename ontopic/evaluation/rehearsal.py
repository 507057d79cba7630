"""The rehearsal: both models on the calibration questions, which may be asked again and again, before a look is spent.

A challenger that is not even ahead there takes no look, so the alpha that is left goes to those that may be better. It
promotes nobody, and its questions are not the gate's, so it costs no alpha (two-stage screening, as in choosing on a
validation set before the test set is asked).
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import GateLimits
from ontopic.data.labelled import load_questions
from ontopic.data.rows import source_sha256
from ontopic.data.sample import Sample, in_and_out
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import Decision, GateTest
from ontopic.statistics.limits import hold
from ontopic.statistics.pairs import Comparison, compare

REHEARSAL = "Rehearsal on calibration questions, challenger minus champion"
LEAST_REHEARSED = 200
"""On fewer questions a truly better challenger is too often behind by chance."""
ALPHA = 0.7
"""Two-sided: of challengers that are no better one in three is let through, of those better by 0.02 four in five."""


class Rehearsal(BaseModel):
    """What came of a rehearsal.

    Attributes:
        passed: whether a look may be taken.
    """

    model_config = ConfigDict(frozen=True)
    comparison: Comparison
    passed: bool
    description: str

    def added_to(self, decision: Decision) -> Decision:
        """The decision with one more test: the rehearsal's."""
        test = GateTest(name=REHEARSAL, passed=self.passed, description=f"{REHEARSAL}: {self.description}")
        return decision.model_copy(update={"tests": [*decision.tests, test], "passed": decision.passed and self.passed})


def rehearsal_sample(source: str, languages: Sequence[str] = ()) -> Sample | None:
    """The questions of the calibration split, as many in scope as out of it; ``None`` where there are too few.

    Args:
        languages: the policy's.

    Raises what ``load_rows`` raises.
    """
    n = 2 * min(in_and_out(load_questions(source, split="calibration", languages=languages)))
    if n < LEAST_REHEARSED:
        return None
    return Sample(
        source=source, source_sha256=source_sha256(source), split="calibration", n=n, languages=list(languages)
    )


def rehearsal_in_words(source: str, languages: Sequence[str] = ()) -> str:
    """How many questions are asked before, or why none are. Raises what ``load_rows`` raises."""
    if (sample := rehearsal_sample(source, languages)) is not None:
        return (
            f"After the first look against a champion, a challenger that is not ahead on {sample.n} questions of the "
            "calibration split gets none"
        )
    return f"No challenger rehearses: that takes {LEAST_REHEARSED} questions of the calibration split, half in scope"


def rehearsed(champion: Evaluation, challenger: Evaluation, *, limits: GateLimits) -> Rehearsal:
    """Hold the challenger's answers to the rehearsal's questions against the champion's.

    Args:
        champion, challenger: on the same questions in the same order.
    """
    found = compare(champion.verdicts, challenger.verdicts)
    limit, note = limits.improvement, found.note
    held = hold(REHEARSAL, found.rate_at(ALPHA), bound="low", relation="above", limit=limit, note=note, alpha=ALPHA)
    return Rehearsal(comparison=found, passed=held.passed, description=held.description)
