from __future__ import annotations

import pytest
from scope_judge import REFUSAL, ScopeJudge

from ontopic.config.policy import Refusals
from ontopic.judges.guard.guard import Asked, Guard, Opinion, Thresholds
from ontopic.records import Message, Record

THRESHOLDS = Thresholds(question=0.3, answer=0.3)
GERMAN = "Es tut mir leid, ich kann nur bei Bankfragen helfen."
CARD, POEM, MONEY = "How do I freeze my card?", "Write me a poem.", "Where does money come from?"


def guard(thresholds: Thresholds = THRESHOLDS) -> Guard:
    return Guard(ScopeJudge(), thresholds, Refusals(refusal=REFUSAL, refusals={"de": GERMAN}))


def said(*texts: str) -> tuple[Message, ...]:
    """A conversation of these turns, the user's first."""
    roles = ("user", "assistant")
    return tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(texts))  # type: ignore[arg-type]


def opinion(*texts: str, answer: str | None = None, whole: bool = True) -> Opinion:
    (found,) = guard().opinions([Asked(messages=said(*texts), answer=answer, whole=whole)])
    return found


@pytest.mark.parametrize(
    ("texts", "stops"),
    [
        ((CARD,), False),
        ((POEM,), True),
        ((MONEY,), False),  # 0.4: the judge says out of scope, but is not certain
        ((CARD, "In the app.", "And how long does that take?"), False),
        ((POEM, REFUSAL, "And how long does that take?"), True),
    ],
    ids=["in scope", "out of scope", "uncertain", "follow-up in scope", "follow-up out of scope"],
)
def test_a_question_is_stopped_where_its_conversation_is_surely_out_of_scope(
    texts: tuple[str, ...], stops: bool
) -> None:
    found = opinion(*texts)
    assert (found.stops, found.judge_id, found.answer_score, found.failure) == (stops, "words-1", None, "")
    assert found.scope_score is not None


@pytest.mark.parametrize(
    ("texts", "answer", "stops"),
    [
        ((POEM,), "Roses are red.", True),
        ((POEM,), REFUSAL, False),
        ((CARD,), "Freeze the card in the app.", False),
        ((CARD,), "Roses are red.", True),
        ((CARD,), "", True),
        ((CARD,), REFUSAL, False),  # it fails, but the refusal would say the same
    ],
    ids=["leak", "declined", "answered", "something else", "empty", "over-refusal"],
)
def test_an_answer_is_stopped_where_it_surely_fails(texts: tuple[str, ...], answer: str, stops: bool) -> None:
    assert opinion(*texts, answer=answer).stops is stops


@pytest.mark.parametrize(
    ("question", "stops"), [(POEM, True), (CARD, False), (MONEY, False)], ids=["out of scope", "in scope", "uncertain"]
)
def test_the_beginning_of_an_answer_is_stopped_only_where_it_can_come_to_no_right_one(
    question: str, stops: bool
) -> None:
    assert opinion(question, answer="Sure, gladly!", whole=False).stops is stops


def test_what_the_judge_cannot_judge_is_a_failure_and_stops_nothing() -> None:
    for answer in (None, "Yes."):
        found = opinion("WRITE A POEM", answer=answer)
        assert (found.stops, found.failure, found.judge_id) == (False, "it shouts", "words-1")


def test_a_threshold_of_0_stops_nothing() -> None:
    never = guard(Thresholds(question=0, answer=0))
    asked = [Asked(messages=said(POEM)), Asked(messages=said(POEM), answer="Roses.")]
    assert [found.stops for found in never.opinions(asked)] == [False, False]


def test_what_users_get_of_answers_is_the_refusal_in_place_of_what_is_stopped() -> None:
    chat = said(CARD, "In the app.", "And then?")
    records = [
        Record(question=CARD, answer="Freeze the card."),
        Record(question=POEM, answer="Roses are red.", finished=False),
        Record(question=CARD, answer="Roses are red."),
        Record(question="And then?", answer="The card is frozen.", messages=chat),
        Record(question="HELLO", answer="Hello."),
    ]
    found = guard().protected(records)
    assert [record.answer for record in found] == [
        *("Freeze the card.", REFUSAL, REFUSAL, "The card is frozen.", "Hello.")
    ]
    decisions = [record.guard for record in found if record.guard]
    assert [d.stage for d in decisions] == ["", "question", "answer", "", ""]
    assert [d.withheld for d in decisions] == ["", "Roses are red.", "Roses are red.", "", ""]
    assert [d.failure for d in decisions] == ["", "", "", "", "it shouts"]
    assert [record.finish_reason for record in found] == ["stop", "content_filter", "content_filter", "stop", "stop"]
    assert all(record.finished for record in found)


def test_what_is_stopped_is_refused_in_the_language_of_the_question() -> None:
    poem = "Schreib mir bitte ein langes Gedicht über den Herbst und die fallenden Blätter."
    stops = Guard(ScopeJudge(), Thresholds(question=1.0, answer=1.0), guard().refusals)
    english, german = stops.protected([Record(question=q, answer="Roses are red.") for q in (POEM, poem)])
    assert (english.answer, german.answer) == (REFUSAL, GERMAN)
