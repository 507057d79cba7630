"""The review of what an LLM wrote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ontopic.data.synthetic import MarkedQuestion, MarkedRecord
from ontopic.drafting.draft import Draft
from ontopic.drafting.review import reviewed
from ontopic.drafting.terminal import LeaveError, Terminal


def question(i: int, *, in_scope: bool = True, **more: object) -> MarkedQuestion:
    values = {"question": f"q{i}", "in_scope": in_scope, "intent": "loans", "origin": "synthetic", "reviewed": False}
    return MarkedQuestion.model_validate(values | more)


def record(i: int, kind: str = "leak", **more: object) -> MarkedRecord:
    values = {"question": f"q{i}", "answer": f"a{i}", "label": "fail", "in_scope": True, "kind": kind}
    return MarkedRecord.model_validate(values | {"origin": "synthetic", "reviewed": False} | more)


DRAFT = Draft(
    name="library",
    subject="library desk",
    definition="What people ask at the desk.",
    questions=tuple(question(i, reference=f"r{i}") for i in range(12)),
    records=(*(record(i) for i in range(4)), record(20, origin="own", reviewed=True)),
)


class Person:
    """Types lines, and keeps what is shown and what is written."""

    def __init__(self, *lines: str) -> None:
        self._lines: Iterator[str] = iter(lines)
        self.shown: list[str] = []
        self.kept: list[Draft] = []
        self.terminal = Terminal(ask=self._ask, say=lambda text: self.shown.append(str(text)))

    def _ask(self, prompt: str) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None

    def review(self, draft: Draft = DRAFT) -> Draft:
        return reviewed(draft, self.terminal, keep=self.kept.append)


def test_enter_agrees_to_a_page_and_each_page_is_kept() -> None:
    person = Person("", "", "")
    done = person.review()
    assert [draft.unseen for draft in person.kept] == [6, 4, 0]
    assert done == person.kept[-1]
    assert [row.model_copy(update={"reviewed": False}) for row in done.questions] == list(DRAFT.questions)
    assert "1 of 3" in "".join(person.shown)


def test_rows_are_dropped_relabelled_and_reworded() -> None:
    done = Person("d 1 3", "d 3", "f 2", "e 4 is it 12 euros?", "", "", "f 1", "e 2 something else", "").review()
    questions = {row.question: row for row in done.questions}
    assert "q0" not in questions and "q2" in questions  # the second d took one back
    assert (questions["q1"].in_scope, questions["q1"].reference) == (False, None)
    assert questions["is it 12 euros?"].reference == "r3"
    # Records of what was dropped or got the other scope are gone, the person's own stay.
    assert [row.question for row in done.records] == ["q2", "q3", "q20"]
    assert [(row.label, row.kind, row.answer) for row in done.records[:2]] == [
        ("pass", "", "a2"),
        ("fail", "leak", "something else"),
    ]


@pytest.mark.parametrize("typed", ["d", "d 0", "d 11", "e 1", "e 1 ", "x", "f one", "d -1", "e 99 text", "d 1;2"])
def test_what_is_no_change_changes_nothing(typed: str) -> None:
    person = Person(typed, "", "", "")
    done = person.review()
    assert sum(row.question.startswith("q") for row in done.questions) == 12
    assert any(text.startswith("Give Enter, d NUMBERS") for text in person.shown)


def test_a_page_can_be_taken_back() -> None:
    person = Person("d 1 2", "", "u", "d 3", "", "", "")
    done = person.review()
    assert {row.question for row in DRAFT.questions} - {row.question for row in done.questions} == {"q2"}
    assert person.kept[1].unseen == DRAFT.unseen  # as it was before
    assert [row.question for row in done.records] == ["q0", "q1", "q3", "q20"]


def test_what_is_left_unseen_is_marked_so() -> None:
    done = Person("d 1", "", "a").review()
    assert (len(done.questions), done.unseen) == (11, 2 + 3)


@pytest.mark.parametrize("lines", [("d 1", "", "q"), ("d 1", "")], ids=["q", "end of input"])
def test_who_leaves_keeps_the_pages_so_far_and_goes_on_there(lines: tuple[str, ...]) -> None:
    person = Person(*lines)
    with pytest.raises(LeaveError):
        person.review()
    (kept,) = person.kept
    assert (len(kept.questions), kept.unseen) == (11, 5)
    again = Person("", "")
    assert again.review(kept).unseen == 0
    assert "1 of 2" in "".join(again.shown)


def test_hostile_text_moves_no_cursor() -> None:
    person = Person("", "")
    hostile = question(1, reference="\x1b[2J\u202e", intent="a\x07b").model_copy(
        update={"question": "x\x1b]0;t\x07\ry"}
    )
    person.review(DRAFT.model_copy(update={"questions": (hostile,), "records": ()}))
    shown = "".join(person.shown)
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
    assert "\\x1b[2J" in shown
