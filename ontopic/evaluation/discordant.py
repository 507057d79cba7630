"""Pairs of answers of champion and challenger that a person is asked to label: where they are kept, and which.

On a pair whose verdicts differ the judge says that one model is better, and on one whose verdicts agree that neither
is; a person's labels of random ones of both say how far that is so. Whoever labels is not told which model answered,
nor what the judge said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ontopic.data.drawing import fits
from ontopic.data.labelled import SCOPE_BY_JUDGE, LabelledRecord, conversation_and_answer
from ontopic.data.labels import LabelStore
from ontopic.errors import UserError
from ontopic.evaluation.answers import Evaluation
from ontopic.records import Message, Record
from ontopic.state.workspace import Workspace

PAIRS = 60
"""How many pairs of each kind are labelled where nothing else is asked for."""


class Pair(BaseModel):
    """Two answers to one question.

    Attributes:
        messages: all that was sent; empty where it was the question alone.
        in_scope: as labelled; ``None`` where only the judge has said it.
        champion, challenger: their answers.
        passes: whether the judge passes the champion's and the challenger's.
    """

    model_config = ConfigDict(frozen=True)
    question: str
    messages: tuple[Message, ...] = ()
    in_scope: bool | None
    champion: str
    challenger: str
    passes: tuple[bool, bool]

    def answered(self, answer: str) -> Record:
        """A record of one of the answers."""
        return Record(question=self.question, messages=self.messages, answer=answer, in_scope=self.in_scope)

    @property
    def request(self) -> list[dict[str, str]]:
        """As ``Record.request``."""
        return self.answered("").request

    @property
    def differs(self) -> bool:
        """Whether the verdicts do."""
        return self.passes[0] != self.passes[1]

    @property
    def order(self) -> str:
        """What pairs are drawn by: a hash, so that a sample can be resumed, and no verdict or version counts."""
        return _hash(*_said(self.request), *sorted((self.champion, self.challenger)))


class GatePairs(BaseModel):
    """The pairs of one gate: those with different verdicts, and those with the same verdict on different answers.

    Attributes:
        champion, challenger: versions.
        sample_id: of the gate's questions.
        same: how many pairs besides were judged, of one and the same answer and verdict.
    """

    model_config = ConfigDict(frozen=True)
    registered_model: str
    champion: str
    challenger: str
    judge_id: str
    sample_id: str
    at: datetime
    discordant: list[Pair]
    agreeing: list[Pair]
    same: int

    def is_of_same_models(self, other: GatePairs) -> bool:
        """Whether the other gate held the same versions against each other, by the same judge."""
        ours = (self.registered_model, self.champion, self.challenger, self.judge_id)
        return ours == (other.registered_model, other.champion, other.challenger, other.judge_id)


def pairs_of(champion: Evaluation, challenger: Evaluation, *, registered_model: str) -> GatePairs:
    """The pairs of a gate in which both answers were judged.

    Args:
        champion, challenger: on the same questions in the same order.
    """
    pairs, same = [], 0
    sides = (champion.questions, champion.records, challenger.records, champion.verdicts, challenger.verdicts)
    for question, before, after, said, now_said in zip(*sides, strict=True):
        if "unjudged" in (said.outcome, now_said.outcome):
            continue
        passes = (said.outcome == "pass", now_said.outcome == "pass")
        if before.answer == after.answer and passes[0] == passes[1]:
            same += 1
            continue
        known = None if question.kind == SCOPE_BY_JUDGE else question.in_scope
        pair = Pair(
            question=before.question,
            messages=before.messages,
            in_scope=known,
            champion=before.answer,
            challenger=after.answer,
            passes=passes,
        )
        pairs.append(pair)
    judges = sorted({verdict.judge_id for verdict in (*champion.verdicts, *challenger.verdicts)})
    return GatePairs(
        registered_model=registered_model,
        champion=champion.model_version,
        challenger=challenger.model_version,
        judge_id=" ".join(judges),
        sample_id=_hash(*(text for record in champion.records for text in _said(record.request))),
        at=datetime.now(UTC),
        discordant=sorted((pair for pair in pairs if pair.differs), key=lambda pair: pair.order),
        agreeing=sorted((pair for pair in pairs if not pair.differs), key=lambda pair: pair.order),
        same=same,
    )


def keep_pairs(pairs: GatePairs, workspace: Workspace) -> Path:
    """Keep a gate's pairs in the state folder, in place of those of the same models on the same questions."""
    name = _hash(pairs.registered_model, pairs.champion, pairs.challenger, pairs.judge_id, pairs.sample_id)
    path = workspace.discordant / pairs.registered_model / f"{name[:24]}.json"
    workspace.files.write(path, pairs.model_dump_json().encode())
    return path


def kept_pairs(workspace: Workspace, registered_model: str) -> list[GatePairs]:
    """The pairs of all gates of a registered model, the newest last.

    Raises:
        UserError: a file cannot be read.
    """
    found, files = [], workspace.files
    for path in files.within(workspace.discordant / registered_model):
        try:
            found.append(GatePairs.model_validate_json(files.read(path)))
        except (OSError, ValueError):
            raise UserError(f"{files.where(path)}: these pairs of a gate cannot be read; remove the file") from None
    return sorted(found, key=lambda pairs: pairs.at)


def answers_to_label(workspace: Workspace, registered_model: str, *, store: LabelStore, n: int) -> list[Record]:
    """Both answers of ``n`` random pairs with different verdicts and of ``n`` with the same, of the newest gate.

    Those that have a label already are left out. The order tells nothing of versions, pairs or verdicts.

    Raises:
        UserError: no gate has compared two models yet.
    """
    kept = kept_pairs(workspace, registered_model)
    if not kept:
        raise UserError(f"no gate has held a challenger of {registered_model} against its champion yet; run the loop")
    records = {}
    for pair in (*kept[-1].discordant[:n], *kept[-1].agreeing[:n]):
        for answer in (pair.champion, pair.challenger):
            record = pair.answered(answer)
            records[conversation_and_answer(record)] = record
    left = store.unlabelled([record for record in records.values() if fits(record)], by="discordant")
    return sorted(left, key=lambda record: _hash(*_said(record.request), record.answer))


def labelled_pairs(
    pairs: Sequence[Pair], labels: Sequence[LabelledRecord]
) -> tuple[list[tuple[bool, bool]], list[tuple[bool, bool]]]:
    """Verdicts and labels, champion's and challenger's, of the pairs of which both answers are labelled; true passes.

    Args:
        labels: of answers that ``answers_to_label`` gave.
    """
    known = {row.conversation_and_answer: row.label == "pass" for row in labels if row.label is not None}
    verdicts, said = [], []
    for pair in pairs:
        answers = (pair.answered(answer) for answer in (pair.champion, pair.challenger))
        both = [known.get(conversation_and_answer(answer)) for answer in answers]
        if both[0] is not None and both[1] is not None:
            verdicts.append(pair.passes)
            said.append((both[0], both[1]))
    return verdicts, said


def _said(request: Sequence[dict[str, str]]) -> list[str]:
    return [message["content"] for message in request]


def _hash(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
