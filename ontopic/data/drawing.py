"""Which records a person is asked to label.

Labels teach a judge or measure it, and must not do both. Records chosen because the judge is unsure of them are no
random sample: measured on them alone any judge looks worse than it is, and measured on those they leave behind, better.
So a hash of its opening words puts each conversation into one of two halves of the traffic, for good. Uncertainty
sampling takes from one half, for the training split; random sampling takes from the other, for the calibration split
and so for the card. Who gives a thumb to an answer is no random sample either, and a customer can dislike a right
refusal: so records with feedback are shown to a labeller, from the first half too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.data.labelled import LabelledRecord, conversation_and_answer
from ontopic.data.labels import Draw, LabelStore
from ontopic.data.same_question import near_duplicates, opening, spoken
from ontopic.records import Record, Verdict

_POOL = 500  # near duplicates are looked for among this many records at a time
_STRETCHES = 10  # of time, over which a random sample is spread
_JUDGED = 2000  # the newest records, among which the least sure are looked for

_PURPOSE: dict[Draw, str] = {
    "random": "sampled at random over time: their labels say how the judge errs on this traffic, and correct its score",
    "uncertainty": "of which the judge is least sure: their labels go to the training split, never into the card",
    "feedback": "which somebody gave a thumb: their labels go to the training split, never into the card",
    "discordant": "on which champion and challenger differ: their labels say how the judge errs on each of the two",
}


class ToLabel(BaseModel):
    """Records to ask a person for the labels of, and how they were chosen.

    Attributes:
        by: how they were chosen, which decides what their labels are for.
        notes: what else to show of each record, one a record; empty where there is nothing.
        proposed: right answers that were proposed, likewise.
        n_found: among how many records they were chosen.
    """

    model_config = ConfigDict(frozen=True)
    by: Draw
    records: list[Record]
    notes: list[str]
    proposed: list[str] = []
    n_found: int

    def __str__(self) -> str:
        other = "uncertainty" if self.by == "random" else "random"
        return (
            f"{len(self.records)} of {self.n_found} records, {_PURPOSE[self.by]}; "
            f"one half of the questions is left to --by {other}"
        )


def records_to_label(
    found: Sequence[Record],
    store: LabelStore,
    *,
    by: Draw,
    n: int,
    judge: Callable[[Sequence[Record]], Sequence[Verdict]],
    notes: Mapping[str, str] | None = None,
    proposed: Mapping[str, str] | None = None,
) -> ToLabel:
    """Choose the records to ask a person for: those of this way's half that have no label yet.

    Args:
        found: what to choose from, in the order of time; for ``feedback`` the records that have some, best first.
        n: how many to choose; fewer where there are no more.
        judge: gives a verdict a record, in order; called for ``uncertainty`` alone.
        notes: what else to show of a record, by its id; where given, each of ``found`` has one.
        proposed: right answers that were proposed, by the record's id.
    """
    left = store.unlabelled(drawable(found, by))
    if by == "random":
        waiting = {conversation_and_answer(record) for record in left}
        left = [each for each in random_order(drawable(found, by)) if conversation_and_answer(each) in waiting]
        chosen = list(range(len(left)))[:n]
    elif by == "feedback":
        chosen = list(range(len(left)))[:n]
    else:
        left = left[-_JUDGED:]
        # Without the records' scopes: how sure the judge is of the scope is part of what a label would teach.
        verdicts = judge([record.model_copy(update={"in_scope": None}) for record in left])
        chosen = most_informative(left, [verdicts], n=n)
    records = [left[i] for i in chosen]
    return ToLabel(
        by=by,
        records=records,
        notes=[notes[record.id] for record in records] if notes else [],
        proposed=[proposed.get(record.id, "") for record in records] if proposed else [],
        n_found=len(found),
    )


def without_label(rows: Sequence[LabelledRecord]) -> list[Record]:
    """The rows of a file that carry no label, as records to choose from."""
    return [row.record(in_scope=row.in_scope) for row in rows if row.label is None]


def drawable(records: Sequence[Record], by: Draw) -> list[Record]:
    """The records that may be drawn in this way: one half of the questions for each way, whatever the judge says.

    A record that ``LabelledRecord`` does not take (blank, or too long) is left out; one with the same conversation and
    answer as another counts once. All turns of a conversation are of one half.
    """
    half = 0 if by == "random" else 1
    unique = {conversation_and_answer(record): record for record in records}.values()
    return [r for r in unique if _hash(opening(r.request)) % 2 == half and fits(r)]


def random_order(records: Sequence[Record]) -> list[Record]:
    """The records in a random order whose beginning, of whatever length, is spread evenly over time.

    They are cut into stretches of equally many. Within each, the order is that of the hashes of their texts, so that a
    sample can be resumed; the stretches take turns.

    Args:
        records: in the order of time.
    """
    size = -(-len(records) // _STRETCHES) or 1
    turns = [
        (turn, _hash(*_texts(record)), record)
        for start in range(0, len(records), size)
        for turn, record in enumerate(sorted(records[start : start + size], key=lambda r: _hash(*_texts(r))))
    ]
    return [record for _, _, record in sorted(turns, key=lambda each: each[:2])]


def most_informative(records: Sequence[Record], judged: Sequence[Sequence[Verdict]], *, n: int) -> list[int]:
    """The records whose labels would teach a judge most.

    Uncertainty sampling (Lewis and Gale 1994): the nearer the probability of a pass is to a half, the better. Where
    several judges give theirs, it is the entropy of their mean (the committee of Dagan and Engelson 1995), which is
    high where they are unsure and where they disagree. A question that is nearly the same as one already taken is
    passed over.
    Labels of them are for the training split only: see the module's docstring.

    Args:
        records: what to choose from.
        judged: for each judge its verdicts on ``records``, in order.
        n: how many to choose.

    Returns:
        Indices, the most informative first; fewer than ``n`` where there are no more. Records that no judge could
        judge are left out.

    Raises:
        ValueError: a judge's verdicts and the records are not equally many.
    """
    if any(len(verdicts) != len(records) for verdicts in judged):
        raise ValueError(f"{len(records)} records, {[len(verdicts) for verdicts in judged]} verdicts")
    entropies = [_entropy([v[i].score for v in judged]) for i in range(len(records))]
    order = sorted((i for i in range(len(records)) if entropies[i] is not None), key=lambda i: -(entropies[i] or 0.0))
    chosen: list[int] = []
    for start in range(0, len(order), _POOL):
        pool = order[start : start + _POOL]
        others = [*chosen, *pool]
        alike: dict[int, set[int]] = {i: set() for i in pool}
        ours, theirs = ([spoken(records[i].request) or "-" for i in part] for part in (pool, others))
        for left, right in near_duplicates(ours, theirs):
            alike[pool[left]].add(others[right])
        for i in pool:
            if len(chosen) == n:
                return chosen
            if alike[i].isdisjoint(chosen):
                chosen.append(i)
    return chosen


def _entropy(scores: Sequence[float | None]) -> float | None:
    """Entropy in bits of the mean probability of a pass; ``None`` where no judge gives one."""
    known = [score for score in scores if score is not None]
    if not known:
        return None
    p = math.fsum(known) / len(known)
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def fits(record: Record) -> bool:
    """Whether a label of it can be kept: it is neither blank nor too long."""
    try:
        return bool(LabelledRecord.of(record))
    except ValidationError:
        return False


def _texts(record: Record) -> list[str]:
    return [*(message["content"] for message in record.request), record.answer]


def _hash(*texts: str) -> int:
    content = json.dumps(texts).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
