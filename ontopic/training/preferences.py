"""Preference pairs built from traffic, for ORPO."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, RootModel

from ontopic.data.labelled import Question
from ontopic.data.same_question import normalized
from ontopic.records import Record, Verdict

_WHOLE = 4  # of the covered questions in scope, one in so many gives a whole pair
# Of the covered questions one in so many follows another one and its answer, or, in scope, stands beside one out of
# scope. As their places in the row are odd, these are never the ones that give a whole pair.
_IN_CONVERSATION, _FOLLOWING, _BESIDE = 6, 1, 3
_JOINTS = (" ", "\n", " and ", ". Also, ")
WRITTEN, OWN, REFUSAL, TEACHER = "reference", "model", "refusal", "teacher"


class Preference(BaseModel):
    """One pair: for this question, ``chosen`` is better than ``rejected``.

    Attributes:
        source: where ``chosen`` comes from: ``reference``, ``teacher``, ``model`` or ``refusal``.
        record_id: the traffic record that the pair was made from; empty where it was made from a labelled question.
        history: what was said before the question, as messages.
        beginnings: whether only how the two answers begin is compared, which is what decides between them.
    """

    model_config = ConfigDict(frozen=True)
    question: str
    chosen: str
    rejected: str
    in_scope: bool
    source: str
    record_id: str
    history: Sequence[dict[str, str]] = ()
    beginnings: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation, the question last."""
        return [*self.history, {"role": "user", "content": self.question}]


class Preferences(RootModel[list[Preference]]):
    """Pairs in an order, as steps pass them on."""


def build_preferences(
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    *,
    labelled: Sequence[Question],
    refusal: str,
    seed: int,
    taught: Mapping[str, str] | None = None,
    in_scope_share: float = 0.5,
    rehearse: bool = False,
    least_certainty: float = 0.0,
    cover: int = 0,
    own: Mapping[str, str] | None = None,
) -> list[Preference]:
    """Pairs from judged traffic: in scope, an answer over the refusal; out of scope, the refusal over what was said.

    In scope, the chosen answer is the teacher's, else the reference written for that question, else the model's best of
    ``own``, else the record's where the judge passed it and did not take it for a refusal; a question with none of
    these gives no pair. A question's scope is its label where it is one of ``labelled``, else the judge's opinion.
    Questions that differ only in case, punctuation or spaces count once. The two scopes are balanced by dropping at
    random from the larger; where one gives no pair, as a model that refuses everything leaves none out of scope, all of
    the other's are kept.

    Args:
        taught: a teacher's answers by question.
        in_scope_share: share of in-scope pairs among all.
        rehearse: for a model that was trained before. Most of its out-of-scope answers are the refusal and give no
            pair, and from a few of those alone it would learn to refuse everything. So none is dropped, and in-scope
            questions of ``labelled`` that have a reference fill up their side to the share. ``cover`` does that too.
        least_certainty: a record without a label gives a pair only where the judge's score is at least half of this
            away from 0.5.
        cover: so many pairs more, of answers to other ``labelled`` questions or of how they begin, so that none is
            dropped and both sides are filled up to the share; as many of each intent as of any other, as far as they
            go. Out of scope the refusal is chosen over the answer that the model gave to some other question.
        own: the model's best answers by question, of those that ``unwritten`` tells.

    Returns:
        Shuffled pairs; the same for the same input and seed.
    """
    known = {normalized(q.question): q for q in labelled}
    pairs: dict[str, Preference] = {}
    for record, verdict in zip(records, verdicts, strict=True):
        key = normalized(record.question)
        label = known.get(key)
        in_scope = _in_scope(label, verdict, least_certainty=least_certainty)
        if in_scope is None or key in pairs:
            continue
        chosen, rejected, source = "", refusal, ""
        if not in_scope:
            chosen, rejected, source = refusal, record.answer, REFUSAL
        elif taught and record.question in taught:
            chosen, source = taught[record.question], TEACHER
        elif label and label.reference:
            chosen, source = label.reference, WRITTEN
        elif own and record.question in own:
            chosen, source = own[record.question], OWN
        elif verdict.outcome == "pass" and not verdict.declined and record.finished:
            chosen, source = record.answer, OWN
        if chosen.strip() and rejected.strip() and normalized(chosen) != normalized(rejected):
            history = label.messages[:-1] if label else []
            pairs[key] = Preference(
                question=record.question,
                chosen=chosen,
                rejected=rejected,
                in_scope=in_scope,
                source=source,
                record_id=record.id,
                history=history,
            )
    chance = random.Random(seed)
    inside = [p for p in pairs.values() if p.in_scope]
    outside = [p for p in pairs.values() if not p.in_scope]
    odds = in_scope_share / (1 - in_scope_share)
    if cover:
        more_inside = min(cover, max(0, round((len(pairs) + cover) * in_scope_share) - len(inside)))
        kept = [
            *pairs.values(),
            *_cover(known, pairs, refusal=refusal, inside=more_inside, outside=cover - more_inside, chance=chance),
        ]
    elif rehearse:
        missing = max(0, round(len(outside) * odds) - len(inside))
        others = [q for key, q in known.items() if key not in pairs and q.in_scope and q.reference]
        rehearsed = chance.sample(others, min(missing, len(others)))
        kept = list(pairs.values())
        kept += [
            Preference(
                question=q.question,
                chosen=q.reference or "",
                rejected=refusal,
                in_scope=True,
                source=WRITTEN,
                record_id="",
                history=q.messages[:-1],
            )
            for q in rehearsed
        ]
    else:
        keep_inside = min(len(inside), round(len(outside) * odds)) if outside else len(inside)
        keep_outside = min(len(outside), round(len(inside) / odds)) if inside else len(outside)
        kept = chance.sample(inside, keep_inside) + chance.sample(outside, keep_outside)
    chance.shuffle(kept)
    return kept


def unwritten(
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    *,
    labelled: Sequence[Question],
    taught: Mapping[str, str] | None = None,
    least_certainty: float = 0.0,
) -> list[Record]:
    """The records, one a question, that are in scope and of whose question nobody wrote an answer.

    The arguments are those of ``build_preferences``.
    """
    known = {normalized(q.question): q for q in labelled}
    found: dict[str, Record] = {}
    for record, verdict in zip(records, verdicts, strict=True):
        label = known.get(key := normalized(record.question))
        written = record.question in (taught or ()) or (label is not None and label.reference)
        if _in_scope(label, verdict, least_certainty=least_certainty) and not written:
            found.setdefault(key, record)
    return list(found.values())


def _in_scope(label: Question | None, verdict: Verdict, *, least_certainty: float) -> bool | None:
    """What the label says, else the judge where it is certain enough."""
    if label:
        return label.in_scope
    return verdict.in_scope if abs(2 * (verdict.score or 0.0) - 1) >= least_certainty else None


def _cover(
    known: Mapping[str, Question],
    pairs: Mapping[str, Preference],
    *,
    refusal: str,
    inside: int,
    outside: int,
    chance: random.Random,
) -> list[Preference]:
    """Pairs for so many labelled questions, in and out of scope, that gave none.

    In scope every fourth one is whole: from beginnings alone the model forgets how an answer goes on and ends. Some are
    put into a conversation.
    """
    others = [q for key, q in known.items() if key not in pairs]
    said = [pair.rejected for pair in pairs.values() if not pair.in_scope]
    conversation = _Conversation([q for q in known.values() if _is_plain(q)], refusal, chance=chance)
    found = []
    for number, q in enumerate(_by_intent([q for q in others if q.in_scope and q.reference], inside, chance=chance)):
        question, history = conversation.around(q, number)
        beginnings = number % _WHOLE > 0
        found.append(
            Preference(
                question=question,
                chosen=str(q.reference),
                rejected=refusal,
                in_scope=True,
                source=WRITTEN,
                record_id="",
                history=history,
                beginnings=beginnings,
            )
        )
    if said:
        for number, q in enumerate(_by_intent([q for q in others if not q.in_scope], outside, chance=chance)):
            question, history = conversation.around(q, number)
            found.append(
                Preference(
                    question=question,
                    chosen=refusal,
                    rejected=chance.choice(said),
                    in_scope=False,
                    source=REFUSAL,
                    record_id="",
                    history=history,
                    beginnings=True,
                )
            )
    return found


class _Conversation:
    """Puts questions behind and beside others, so that the model learns to go by what is asked last, and to answer what
    is in scope though something else is asked too."""

    def __init__(self, plain: Sequence[Question], refusal: str, *, chance: random.Random) -> None:
        self._inside = [q for q in plain if q.in_scope and q.reference]
        self._outside = [q for q in plain if not q.in_scope]
        self._refusal, self._chance = refusal, chance

    def around(self, question: Question, number: int) -> tuple[str, list[dict[str, str]]]:
        """What is asked in place of the ``number``-th question, and what was said before it."""
        place = number % _IN_CONVERSATION if _is_plain(question) and self._inside and self._outside else None
        if place == _FOLLOWING:
            before = self._chance.choice(self._chance.choice((self._inside, self._outside)))
            answer = str(before.reference) if before.in_scope else self._refusal
            return question.question, [*before.messages, {"role": "assistant", "content": answer}]
        if place == _BESIDE and question.in_scope:
            both = [question.question, self._chance.choice(self._outside).question]
            self._chance.shuffle(both)
            return self._chance.choice(_JOINTS).join(both), []
        return question.question, question.messages[:-1]


def _is_plain(question: Question) -> bool:
    return not (question.history or question.kind)


def _by_intent(questions: Sequence[Question], n: int, *, chance: random.Random) -> list[Question]:
    """So many of them: one of each intent in turn, in random order."""
    shuffled = chance.sample(list(questions), len(questions))
    turns: dict[str, int] = {}
    placed = []
    for question in shuffled:
        turns[question.intent] = turns.get(question.intent, 0) + 1
        placed.append((turns[question.intent], question))
    return [question for _, question in sorted(placed, key=lambda each: each[0])[:n]]


def preferences_hash(preferences: Sequence[Preference]) -> str:
    """sha256 (hex) over the pairs, in their order, without the ids of the records that they came from."""
    rows = [pair.model_dump(exclude={"record_id"}) for pair in preferences]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
