"""Right answers that people wrote in the place of the model's: which of them may teach it.

They come with labels (``label``) and with feedback (``POST /v1/feedback``). Feedback is written by whoever has a key,
so it teaches once a labeller has taken it over, or where the configuration trusts its key.

What measures never teaches: not the half of the conversations whose labels are the card's, not those that are kept for
the gate, and nothing that the policy's calibration or evaluation questions ask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.data.drawing import drawable
from ontopic.data.held_out import is_held_out
from ontopic.data.labelled import Question, conversation_and_answer, load_questions
from ontopic.data.labels import SPLIT, LabelStore, labels_of
from ontopic.data.same_question import near_duplicates, normalized, spoken
from ontopic.records import Record
from ontopic.state.workspace import Workspace, is_there
from ontopic.traffic.store import TrafficStore

_MEASURES = ("calibration", "evaluation")


class Correction(BaseModel):
    """A right answer in the place of the one that a model gave.

    Attributes:
        record: that was corrected, with its scope where a person said it.
        answer: the right one.
    """

    model_config = ConfigDict(frozen=True)
    record: Record
    answer: str


class Corrections(BaseModel):
    """The corrections that may teach, the newest of each answer, and how many may not, as what they are of measures."""

    model_config = ConfigDict(frozen=True)
    taught: list[Correction] = []
    held_apart: int = 0

    @property
    def sha256(self) -> str:
        """Of what is taught, in hex."""
        rows = [[c.record.request, c.record.answer, c.record.in_scope, c.answer] for c in self.taught]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def load_corrections(policy: Policy, workspace: Workspace, *, keys: Collection[str]) -> Corrections:
    """All corrections of a policy's answers so far, of whichever version.

    A labeller's goes before what came with feedback on the same answer.

    Args:
        keys: the names of the API keys whose feedback teaches without a labeller's having seen it.

    Raises:
        UserError: the labels or the questions cannot be read.
    """
    labels = [row for row in LabelStore(labels_of(policy, workspace)).labels() if row.split != SPLIT["discordant"]]
    rows = [
        (row.record(in_scope=row.in_scope).model_copy(update={"id": row.record_id}), row.correction)
        for row in labels
        if row.split == SPLIT["feedback"]
    ]
    labelled = {row.conversation_and_answer for row in labels}  # as bad or as good, by who has seen the feedback
    if keys and is_there(workspace.traffic):
        with TrafficStore(workspace.traffic, policy.registered_model) as traffic:
            rows += [row for row in _of_feedback(traffic, keys) if conversation_and_answer(row[0]) not in labelled]
    apart = sum(bool(row.correction.strip()) for row in labels if row.split != SPLIT["feedback"])
    newest = {conversation_and_answer(record): Correction(record=record, answer=a) for record, a in rows if a.strip()}
    if not newest:
        return Corrections(held_apart=apart)
    questions = [q for q in load_questions(policy.questions, languages=policy.languages) if q.split in _MEASURES]
    taught = _that_may_teach(list(newest.values()), questions)
    return Corrections(taught=taught, held_apart=apart + len(newest) - len(taught))


def _of_feedback(traffic: TrafficStore, keys: Collection[str]) -> list[tuple[Record, str]]:
    """Records and their corrections by these keys, the newest last."""
    given = [each for each in reversed(traffic.feedback()) if each.by in keys and each.correction.strip()]
    records = {record.id: record for record in traffic.records(ids=[each.record_id for each in given])}
    return [(records[each.record_id], each.correction) for each in given if each.record_id in records]


def _that_may_teach(corrections: Sequence[Correction], measuring: Sequence[Question]) -> list[Correction]:
    """Those of which nothing measures, whoever drew them."""
    own = {conversation_and_answer(record) for record in drawable([c.record for c in corrections], "feedback")}
    left = [c for c in corrections if conversation_and_answer(c.record) in own and not is_held_out(c.record)]
    asked = [q.spoken for q in measuring]
    texts = [spoken(c.record.request) for c in left]
    # In its conversation, and alone, as it may be asked after something else.
    near = {i for i, _ in near_duplicates(texts, asked)}
    near |= {i for i, _ in near_duplicates([normalized(c.record.question) for c in left], asked)}
    begun = set(asked)
    near |= {
        i
        for i, text in enumerate(texts)
        for n in range(text.count("\n") + 1)
        if "\n".join(text.split("\n")[:n]) in begun
    }
    return [c for i, c in enumerate(left) if i not in near]
