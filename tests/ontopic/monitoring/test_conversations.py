"""Whole conversations: which left the subject, with which question, and which came back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ontopic.monitoring.conversations import conversations_of, conversations_table
from ontopic.records import Judged, Message, Record, Verdict

START = datetime(2026, 11, 1, tzinfo=UTC)
_SCOPES = {"i": True, "o": False, "?": None}


def turns(
    name: str, scopes: str, *, identifier: str = "", questions: list[str] | None = None, history: bool = True
) -> Judged:
    """A chat whose questions are in scope (i), out of it (o) or unjudged (?), asked a minute apart."""
    asked = questions or [f"question {i} of {name}" for i in range(len(scopes))]
    records, verdicts, said = [], [], list[Message]()
    for i, (question, scope) in enumerate(zip(asked, scopes, strict=True)):
        said.append(Message(role="user", content=question))
        records.append(
            Record(
                question=question,
                answer="a",
                id=f"{name} {i}",
                conversation=identifier or name,
                asked_at=START + timedelta(minutes=i),
                messages=tuple(said) if history and len(said) > 1 else (),
            )
        )
        said.append(Message(role="assistant", content="a"))
        known = _SCOPES[scope]
        outcome = "unjudged" if known is None else "pass"
        verdicts.append(Verdict(outcome=outcome, score=None, explanation="", judge_id="j", in_scope=known))
    return Judged(records=records, verdicts=verdicts)


def together(*parts: Judged) -> Judged:
    return Judged(records=[r for p in parts for r in p.records], verdicts=[v for p in parts for v in p.verdicts])


def test_who_left_when_and_who_came_back() -> None:
    chats = ["iii", "ioi", "iioo", "oi", "oo", "i?o", "ii"]
    found = conversations_of(together(*(turns(f"{n}", scopes) for n, scopes in enumerate(chats))))
    assert found is not None
    assert found.n == len(chats)
    assert (round(found.left.value * found.n), found.began_outside) == (5, 2)
    assert found.left_at == {1: 2, 2: 1, 3: 2}
    assert found.turn.value == pytest.approx(2.0)
    assert (round(found.back.value * found.back.n), found.back.n) == (2, 5)
    assert found.back.low < 0.4 < found.back.high


@pytest.mark.parametrize("scopes", ["i", "o", "i?", "??"])
def test_less_than_two_known_questions_are_no_conversation(scopes: str) -> None:
    assert conversations_of(turns("one", scopes)) is None
    assert conversations_of(Judged(records=[], verdicts=[])) is None
    unknown = turns("one", "io")
    records = [record.model_copy(update={"conversation": ""}) for record in unknown.records]
    assert conversations_of(Judged(records=records, verdicts=unknown.verdicts)) is None


def test_chats_that_begin_with_the_same_greeting_are_told_apart() -> None:
    stays = turns("a", "ii", identifier="hi", questions=["Hi", "How do I freeze my card?"])
    leaves = turns("b", "ioi", identifier="hi", questions=["hi", "Bake me a cake.", "And a loan?"])
    mixed = together(stays, leaves)
    for rows in (mixed, Judged(records=mixed.records[::-1], verdicts=mixed.verdicts[::-1])):
        found = conversations_of(rows)
        assert found is not None
        assert (found.n, found.left.value, found.left_at, found.back.value) == (2, 0.5, {2: 1}, 1.0)


def test_a_clients_own_id_orders_by_time_what_comes_without_history() -> None:
    found = conversations_of(turns("mine", "iioi", history=False))
    assert found is not None
    assert (found.n, found.left_at, found.back.value) == (1, {3: 1}, 1.0)


def test_a_part_of_a_conversation_counts_its_questions_from_the_first_that_was_asked() -> None:
    """As where the window before holds the rest, or only some records are judged."""
    whole = turns("cut", "iiiio")
    found = conversations_of(Judged(records=whole.records[3:], verdicts=whole.verdicts[3:]))
    assert found is not None
    assert found.left_at == {5: 1}


def test_several_answers_to_one_request_are_one_turn() -> None:
    chat = turns("choices", "io")
    again = Judged(
        records=[record.model_copy(update={"id": f"{record.id} again"}) for record in chat.records],
        verdicts=[verdict.model_copy(update={"in_scope": None}) for verdict in chat.verdicts],
    )
    found = conversations_of(together(chat, again))
    assert found == conversations_of(chat)


def test_the_page_says_it_in_a_table() -> None:
    found = conversations_of(together(turns("a", "ioi"), turns("b", "ii")))
    assert found is not None
    rows = {str(row[0]): row[1] for row in conversations_table(found).rows}
    assert rows["left it"] == "1 with question 2"
    assert str(rows["left the subject"]) == "0.500 [0.095, 0.905] (n=2)"
    assert rows["mean question at which they left"] is None  # of one


def test_the_numbers_go_to_mlflow_with_their_intervals() -> None:
    stays = conversations_of(turns("one", "ii"))
    assert stays is not None
    assert stays.metrics().keys() == {"conversations"} | {f"conversations_left{end}" for end in ("", "_low", "_high")}
    left = conversations_of(turns("one", "io"))
    assert left is not None
    assert left.metrics()["conversations_left_turn"] == 2
    assert left.metrics()["conversations_back"] == 0 < left.metrics()["conversations_back_high"]
    assert all(isinstance(value, float) for value in left.metrics().values())
