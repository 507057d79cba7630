"""Preference pairs built from traffic, for ORPO."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, RootModel

from ontopic.config.policy import Policy
from ontopic.data.labelled import Question
from ontopic.data.language import refusal_to
from ontopic.data.same_question import identity, normalized
from ontopic.records import Judged, Record, Verdict, question_in
from ontopic.training.corrections import Correction
from ontopic.training.wrong_answers import WrongAnswer

_WHOLE = 4  # of the covered questions in scope, one in so many gives a whole pair
# Of the covered questions one in so many follows another one and its answer, or, in scope, stands beside one out of
# scope. As their places in the row are odd, these are never the ones that give a whole pair.
_IN_CONVERSATION, _FOLLOWING, _BESIDE = 6, 1, 3
_JOINTS = (" ", "\n", " and ", ". Also, ")
WRITTEN, OWN, REFUSAL, TEACHER, CORRECTION = "reference", "model", "refusal", "teacher", "correction"
_RIGHT = (CORRECTION, TEACHER, WRITTEN)  # what somebody wrote; of a model's own answer only a judge says that it passes


class Preference(BaseModel):
    """One pair: for this question, ``chosen`` is better than ``rejected``.

    Attributes:
        source: where ``chosen`` comes from: ``correction``, ``reference``, ``teacher``, ``model`` or ``refusal``. Where
            a wrong answer in scope is rejected, its origin too: ``reference_over_own_answer`` of a model that gave it,
            ``reference_over_synthetic`` where the teacher wrote it to be wrong.
        record_id: the traffic record that the pair was made from; empty where it was made from a labelled question.
        history: what was said before the question, as messages; ``after``: what stands between it and the answer.
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
    after: Sequence[dict[str, str]] = ()
    beginnings: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation, the question last but for what is ``after`` it."""
        return [*self.history, {"role": "user", "content": self.question}, *self.after]


class Preferences(RootModel[list[Preference]]):
    """Pairs in an order, as steps pass them on."""


class PairSettings(BaseModel):
    """Which pairs are made of judged traffic, and how many.

    Attributes:
        seed: of the choice of pairs and their order.
        in_scope_share: share of in-scope pairs among all.
        least_certainty: a record without a label gives a pair only where the judge's probability that its question is
            in scope is at least half of this away from 0.5. A judge that gives no such probability counts as certain.
        cover: so many pairs more, of other labelled questions; then no pair of the traffic is dropped.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)
    seed: int = 0
    in_scope_share: float = 0.5
    least_certainty: float = 0.0
    cover: int = 0


class WrittenAnswers(BaseModel):
    """Answers in scope by the ``identity`` of their questions, beside the references of labelled questions.

    Attributes:
        taught: a teacher's.
        own: the model's best, to those questions that ``unwritten`` tells.
        corrections: right answers that people wrote in the place of one that was given.
        wrong: answers that are known to be wrong.
    """

    model_config = ConfigDict(frozen=True)
    taught: dict[str, str] = {}
    own: dict[str, str] = {}
    corrections: list[Correction] = []
    wrong: dict[str, list[WrongAnswer]] = {}


def build_preferences(
    judged: Judged,
    *,
    labelled: Sequence[Question],
    policy: Policy,
    settings: PairSettings,
    written: WrittenAnswers | None = None,
) -> list[Preference]:
    """Pairs from judged traffic: in scope, an answer over the refusal; out of scope, the refusal over what was said.

    The refusal is the policy's in the question's language. In scope, the chosen answer is the first of these
    that there is; without one, the question gives no pair:

    1. what a person wrote in the place of an answer to it, of this traffic or of another;
    2. the teacher's;
    3. the reference of the labelled question;
    4. the best of the model's own;
    5. the record's, where it is whole, the judge passed it and did not take it for a refusal.

    A question's scope is its label where it is one of ``labelled``, else the judge's opinion. A question is what it is
    in its conversation, which is the record's own; those that differ only in case, punctuation or spaces count once.
    An answer that the guard withheld is rejected in place of what went out, however uncertain its question's scope is.

    Without ``settings.cover`` the two scopes are balanced by dropping at random from the larger one. Where one of them
    gives no pair, as a model that refuses everything leaves none out of scope, all of the other's are kept. With it,
    none is dropped: answers to other labelled questions, or how they begin, fill both sides up to the share. They are
    spread over the intents as evenly as these go, and out of scope the refusal is chosen over the model's answer to
    some other question.

    The first three of these are also chosen over answers to the same question that are known to be wrong. Such pairs
    say nothing of the scope, so they come on top.

    Returns:
        Shuffled pairs; the same for the same input and seed.
    """
    known = {q.identity: q for q in labelled}
    written = written or WrittenAnswers()
    pairs = _scope_pairs(judged, known, policy=policy, settings=settings, written=written)
    chance = random.Random(settings.seed)
    if settings.cover:
        kept = [*pairs.values(), *_cover(known, pairs, policy=policy, settings=settings, chance=chance)]
    else:
        kept = _balanced(list(pairs.values()), settings.in_scope_share, chance=chance)
    kept += _over_wrong(pairs, written)
    chance.shuffle(kept)
    return kept


def _scope_pairs(
    judged: Judged,
    known: Mapping[str, Question],
    *,
    policy: Policy,
    settings: PairSettings,
    written: WrittenAnswers,
) -> dict[str, Preference]:
    """An answer over the refusal, or the refusal over what was said: a pair a question, by its ``identity``."""
    pairs = _corrected(written.corrections, known, policy=policy)
    for record, verdict in _stopped_first(judged):
        label = known.get(key := identity(record.request))
        in_scope = _in_scope(label, verdict, least_certainty=0.0 if _withheld(record) else settings.least_certainty)
        if in_scope is None or key in pairs:
            continue
        chosen, source, rejected = refusal_to(policy, record.question), REFUSAL, record.answer
        if in_scope:
            rejected = chosen
            chosen, source = _chosen_in_scope(record, verdict, key=key, label=label, written=written)
        rejected = _withheld(record) or rejected
        if chosen.strip() and rejected.strip() and normalized(chosen) != normalized(rejected):
            pairs[key] = Preference(
                **_asked(record.question, record.request),
                chosen=chosen,
                rejected=rejected,
                in_scope=in_scope,
                source=source,
                record_id=record.id,
            )
    return pairs


def _corrected(
    corrections: Sequence[Correction], known: Mapping[str, Question], *, policy: Policy
) -> dict[str, Preference]:
    """The pairs of questions whose answers people corrected, by the question, the newest correction of each.

    Its scope is what is labelled, else what the correction is: an answer, or a refusal. Out of scope the policy's
    refusal is chosen, whatever the person wrote.
    """
    refusals = {normalized(refusal) for refusal in policy.all_refusals}
    pairs = {}
    for of in corrections:
        label, record = known.get(key := identity(of.record.request)), of.record
        in_scope = label.in_scope if label else record.in_scope
        if in_scope is None:
            in_scope = normalized(of.answer) not in refusals
        refusal = refusal_to(policy, record.question)
        chosen, rejected = (of.answer, refusal) if in_scope else (refusal, record.answer)
        if rejected.strip() and normalized(chosen) != normalized(rejected):
            pairs[key] = Preference(
                **_asked(record.question, record.request),
                chosen=chosen,
                rejected=rejected,
                in_scope=in_scope,
                source=CORRECTION if in_scope else REFUSAL,
                record_id=record.id,
            )
    return pairs


def _over_wrong(pairs: Mapping[str, Preference], written: WrittenAnswers) -> list[Preference]:
    """Right answers in scope over wrong ones to the same question: those that were corrected, and what else is known.

    Args:
        pairs: by the ``identity`` of their question; what they choose is right where somebody wrote it.
    """
    wrong = {key: list(of) for key, of in written.wrong.items()}
    for of in written.corrections:
        given = WrongAnswer(answer=of.record.answer, origin="own_answer", record_id=of.record.id)
        wrong.setdefault(identity(of.record.request), []).insert(0, given)
    found: dict[tuple[str, str], Preference] = {}
    for key, pair in pairs.items():
        if not pair.in_scope or pair.source not in _RIGHT:
            continue
        for each in wrong.get(key, []):
            said = normalized(each.answer)
            if said and said not in (normalized(pair.chosen), normalized(pair.rejected)):
                told = {"rejected": each.answer, "source": f"{pair.source}_over_{each.origin}"}
                found.setdefault((key, said), pair.model_copy(update=told | {"record_id": each.record_id}))
    return list(found.values())


def _asked(question: str, request: Sequence[dict[str, str]]) -> dict[str, Any]:
    """What a pair says of a question and the messages around it."""
    place = question_in(request)
    return {"question": question, "history": request[:place], "after": request[place + 1 :]}


def _withheld(record: Record) -> str:
    """What the model said and the guard kept from the user, the hardest of negatives; empty where it kept nothing."""
    return record.guard.withheld if record.guard else ""


def _stopped_first(judged: Judged) -> list[tuple[Record, Verdict]]:
    """The records with their verdicts, in their order, those first of which the guard withheld the answer."""
    rows = zip(judged.records, judged.verdicts, strict=True)
    return sorted(rows, key=lambda row: not _withheld(row[0]))


def _chosen_in_scope(
    record: Record, verdict: Verdict, *, key: str, label: Question | None, written: WrittenAnswers
) -> tuple[str, str]:
    """The chosen answer and its source; empty where there is no good one."""
    if key in written.taught:
        return written.taught[key], TEACHER
    if label and label.reference:
        return label.reference, WRITTEN
    if key in written.own:
        return written.own[key], OWN
    if verdict.outcome == "pass" and not verdict.declined and record.finished:
        return record.answer, OWN
    return "", ""


def _balanced(pairs: Sequence[Preference], in_scope_share: float, *, chance: random.Random) -> list[Preference]:
    """The pairs, cut at random to the share of in-scope ones; all of them where one scope has none."""
    inside = [p for p in pairs if p.in_scope]
    outside = [p for p in pairs if not p.in_scope]
    odds = in_scope_share / (1 - in_scope_share)
    keep_inside = min(len(inside), round(len(outside) * odds)) if outside else len(inside)
    keep_outside = min(len(outside), round(len(inside) / odds)) if inside else len(outside)
    return chance.sample(inside, keep_inside) + chance.sample(outside, keep_outside)


def unwritten(
    judged: Judged, *, labelled: Sequence[Question], taught: Mapping[str, str], least_certainty: float = 0.0
) -> list[Record]:
    """The records, one a question, that are in scope and of whose question nobody wrote an answer.

    Args:
        taught: a teacher's answers, as in ``WrittenAnswers``.
        least_certainty: as ``PairSettings`` has it.
    """
    known = {q.identity: q for q in labelled}
    found: dict[str, Record] = {}
    for record, verdict in zip(judged.records, judged.verdicts, strict=True):
        label = known.get(key := identity(record.request))
        written = key in taught or (label is not None and label.reference)
        if _in_scope(label, verdict, least_certainty=least_certainty) and not written:
            found.setdefault(key, record)
    return list(found.values())


def _in_scope(label: Question | None, verdict: Verdict, *, least_certainty: float) -> bool | None:
    """What the label says, else the judge where it is certain enough of the scope, whatever it says of the answer."""
    if label:
        return label.in_scope
    if verdict.scope_score is not None and abs(2 * verdict.scope_score - 1) < least_certainty:
        return None
    return verdict.in_scope


def _cover(
    known: Mapping[str, Question],
    pairs: Mapping[str, Preference],
    *,
    policy: Policy,
    settings: PairSettings,
    chance: random.Random,
) -> list[Preference]:
    """``settings.cover`` pairs, fewer where there are not enough, for labelled questions that gave none.

    In scope every fourth one is whole: from beginnings alone the model forgets how an answer goes on and ends. Some are
    put into a conversation.
    """
    given = sum(pair.in_scope for pair in pairs.values())
    missing = round((len(pairs) + settings.cover) * settings.in_scope_share) - given
    inside = min(settings.cover, max(0, missing))
    outside = settings.cover - inside
    others = [q for key, q in known.items() if key not in pairs]
    said = [pair.rejected for pair in pairs.values() if not pair.in_scope]
    conversation = _Conversation([q for q in known.values() if _is_plain(q)], policy, chance=chance)
    found = []
    for number, q in enumerate(_by_intent([q for q in others if q.in_scope and q.reference], inside, chance=chance)):
        beginnings = number % _WHOLE > 0
        found.append(
            Preference(
                **conversation.around(q, number),
                chosen=str(q.reference),
                rejected=refusal_to(policy, q.question),
                in_scope=True,
                source=WRITTEN,
                record_id="",
                beginnings=beginnings,
            )
        )
    if said:
        for number, q in enumerate(_by_intent([q for q in others if not q.in_scope], outside, chance=chance)):
            found.append(
                Preference(
                    **conversation.around(q, number),
                    chosen=refusal_to(policy, q.question),
                    rejected=chance.choice(said),
                    in_scope=False,
                    source=REFUSAL,
                    record_id="",
                    beginnings=True,
                )
            )
    return found


class _Conversation:
    """Puts questions behind and beside others, so that the model learns to go by what is asked last, and to answer what
    is in scope though something else is asked too."""

    def __init__(self, plain: Sequence[Question], policy: Policy, *, chance: random.Random) -> None:
        self._inside = [q for q in plain if q.in_scope and q.reference]
        self._outside = [q for q in plain if not q.in_scope]
        self._policy, self._chance = policy, chance

    def around(self, question: Question, number: int) -> dict[str, Any]:
        """What is asked in place of the ``number``-th question, and the messages around it."""
        place = number % _IN_CONVERSATION if _is_plain(question) and self._inside and self._outside else None
        if place == _FOLLOWING:
            before = self._chance.choice(self._chance.choice((self._inside, self._outside)))
            answer = str(before.reference) if before.in_scope else refusal_to(self._policy, before.question)
            said = [*before.messages, {"role": "assistant", "content": answer}]
            return _asked(question.question, [*said, *question.messages])
        if place == _BESIDE and question.in_scope:
            both = [question.question, self._chance.choice(self._outside).question]
            self._chance.shuffle(both)
            return {"question": self._chance.choice(_JOINTS).join(both)}
        return _asked(question.question, question.messages)


def _is_plain(question: Question) -> bool:
    return not (question.history or question.after or question.kind)


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
    # As earlier releases wrote it, where nothing stands behind the question.
    rows = [pair.model_dump(exclude={"record_id"} if pair.after else {"record_id", "after"}) for pair in preferences]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
