"""Which of the questions that were written are kept."""

from __future__ import annotations

from collections import Counter

from ontopic.data.synthetic import MarkedQuestion
from ontopic.drafting.selection import chosen_questions


def question(text: str, intent: str, *, in_scope: bool = True, origin: str = "synthetic") -> MarkedQuestion:
    values = {"question": text, "intent": intent, "in_scope": in_scope, "origin": origin}
    return MarkedQuestion.model_validate(values)


OWN = [question("How long can I keep a book?", "loans", origin="own")]


def test_nearly_the_same_as_an_own_question_or_as_an_earlier_one_is_left_out() -> None:
    written = [
        question("how long can i keep a book", "loans"),
        question("How long can I keep a book??", "loans", in_scope=False),
        question("what does a lost card cost", "cards"),
        question("What does a lost card cost?", "fines"),
        question("may my dog come in", "rooms"),
    ]
    kept = chosen_questions(written, own=OWN, n=100)
    assert [row.question for row in kept] == [OWN[0].question, written[2].question, written[4].question]
    assert all(row.split for row in kept)


def test_intents_take_turns_and_both_scopes_are_equally_many() -> None:
    words = [
        "ant",
        "bee",
        "cow",
        "dog",
        "elk",
        "fox",
        "gnu",
        "hen",
        "ibis",
        "jay",
        "koi",
        "lynx",
        "mole",
        "newt",
        "owl",
    ]
    many = [question(f"{a} and {a[::-1]} number {i * 37}", "many") for i, a in enumerate(words)]
    few = [question(f"{a}s {a}ing over {b}", "few") for a, b in zip(words[:3], words[7:10], strict=True)]
    out = [question(f"is {a} like {b}", "other", in_scope=False) for a, b in zip(words, words[5:], strict=False)]
    kept = chosen_questions([*many, *few, *out], own=OWN, n=14)
    assert Counter(row.in_scope for row in kept) == {True: 7, False: 7}
    assert Counter(row.intent for row in kept if row.in_scope) == {"loans": 1, "many": 3, "few": 3}
