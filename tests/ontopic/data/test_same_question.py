"""When two questions count as the same one."""

from __future__ import annotations

from ontopic.data.same_question import near_duplicates, normalized


def test_questions_that_differ_in_case_punctuation_or_spaces_are_the_same() -> None:
    assert normalized(" What's THIS?! ") == normalized("what s this") == "what s this"
    assert normalized("What is that?") != normalized("What is this?")


def test_near_duplicates_are_found_and_others_are_not() -> None:
    left = ["How do I block my card?", "What is the weather today?"]
    right = ["how do I block my card", "How do I order a new chequebook?", "what is the weather today"]
    assert near_duplicates(left, right) == [(0, 0), (1, 2)]


def test_nothing_has_no_near_duplicate() -> None:
    assert near_duplicates([], ["a question"]) == near_duplicates(["a question"], []) == []
