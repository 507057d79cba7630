"""What a gate did not test, so that nobody takes its pass for more than it is."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import PREFERENCE, SIMILARITY, Decision
from ontopic.evaluation.segments import Segment


def untested(decision: Decision, asked: Evaluation, *, found: Sequence[Segment]) -> list[str]:
    """A sentence for each thing that was left out.

    Args:
        asked: one model's evaluation, for its questions.
        found: their segments.
    """
    n = len(asked.questions)
    said = ["Whether answers are true, polite, fair or safe: only whether they keep to the subject."]
    if decision.sealed is None:
        said.append("The sealed questions: they were not opened. What a model learned by heart could pass unnoticed.")
    turns = sum(len(record.request) > 1 for record in asked.records)
    if turns == 0:
        said.append(f"Conversations: each of the {n:,} questions stands alone, without a system prompt or other turns.")
    elif turns < n:
        said.append(f"Conversations beyond {turns:,} of the {n:,} questions: the others stand alone.")
    said.append(_languages(found))
    if decision.preference is None:
        said.append(f"{PREFERENCE}: the judge is no LLM that could compare two answers.")
    if not decision.quality.n:
        said.append(f"{SIMILARITY}: no question in scope has a reference.")
    if decision.alone is None:
        said.append("A guard: none is enforced, so users get the models' own answers.")
    said.append("Speed, cost and behaviour under load; and whatever traffic asks that these questions do not.")
    return said


def _languages(found: Sequence[Segment]) -> str:
    names = [f"{each.name} ({each.n:,})" for each in found if each.by == "language"]
    return f"Other languages than those of the questions: {', '.join(names)}."
