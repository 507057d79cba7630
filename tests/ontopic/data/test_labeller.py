"""Labelling on the terminal."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from ontopic.data.labeller import label_records, terminal_safe
from ontopic.data.labels import LabelStore
from ontopic.records import Record

RECORDS = [
    Record(question=f"question number {i}, on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(200)
]


class Terminal:
    """Answers prompts with lines; keeps what was shown."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.shown = list(lines), ""

    def ask(self, prompt: str) -> str:
        self.shown += prompt
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def say(self, text: str) -> None:
        self.shown += text + "\n"


def labelled(store: LabelStore, records: list[Record], *lines: str) -> Terminal:
    terminal = Terminal(*lines)
    label_records(records, store, by="random", definition="Banking is money.", ask=terminal.ask, say=terminal.say)
    return terminal


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels" / "banking.jsonl")


def test_records_are_labelled_one_by_one(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:4], "p", "y", "s", "f it gives the recipe", "n", "pass", "")
    rows = store.labels()
    assert [(r.question, r.label, r.in_scope, r.why) for r in rows] == [
        (RECORDS[0].question, "pass", True, ""),
        (RECORDS[2].question, "fail", False, "it gives the recipe"),
        (RECORDS[3].question, "pass", None, ""),  # the input ended at the question of scope
    ]
    assert "4 of 4" in terminal.shown
    assert "answer 3" in terminal.shown


def test_the_scope_is_not_asked_where_it_is_known(store: LabelStore) -> None:
    terminal = labelled(store, [Record(question="What is a loan?", answer="Money.", in_scope=True)], "p")
    assert "in scope?" not in terminal.shown
    assert store.labels()[0].in_scope is True


def test_the_second_question_is_announced_and_can_be_undone_left_open_and_left(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:5], "p", "u", "f", "?", "x", "no", "f why", "s", "u", "p", "y", "p", "q", "f")
    announced, _, _ = terminal.shown.partition("1 of 5")
    assert "whether the question is in scope" in announced and "u: back to pass or fail" in announced
    assert "in scope? (y/n, or s, u, q)" in terminal.shown
    assert "Banking is money." in terminal.shown
    assert "Give one of y, n, s, u, q." in terminal.shown
    assert terminal.shown.count("1 of 5") == 2  # shown again after its verdict was taken back
    assert [(r.question, r.label, r.in_scope) for r in store.labels()] == [
        (RECORDS[0].question, "fail", False),
        (RECORDS[1].question, "pass", True),
        (RECORDS[2].question, "pass", None),  # q keeps the label
    ]
    assert terminal.lines == ["f"]


@pytest.mark.parametrize("stop", [EOFError, KeyboardInterrupt])
def test_whatever_ends_the_input_keeps_all_labels(store: LabelStore, stop: type[BaseException]) -> None:
    lines = iter(["p", "y", "f it is off topic"])

    def ask(prompt: str) -> str:
        for line in lines:
            return line
        raise stop

    with contextlib.suppress(KeyboardInterrupt):
        label_records(RECORDS[:3], store, by="random", definition="Banking.", ask=ask, say=lambda text: None)
    assert [(r.label, r.in_scope, r.why) for r in store.labels()] == [
        ("pass", True, ""),
        ("fail", None, "it is off topic"),
    ]


def test_undo_takes_the_last_label_back_and_asks_again(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:3], "u", "p", "y", "s", "u", "f", "n", "q")
    assert "nothing to undo" in terminal.shown
    assert [(r.question, r.label) for r in store.labels()] == [(RECORDS[0].question, "fail")]
    assert terminal.shown.count("1 of 3") == 3


def test_help_and_an_unknown_key_label_nothing(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:1], "?", "x", "", "q")
    assert "Banking is money." in terminal.shown
    assert terminal.shown.count("Give one of p, f, c, s, u, q.") == 2
    assert store.labels() == []


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred", r"  | \x1b[2J\x1b[31mred"),
        ("a\rpass or fail? p", r"  | a\rpass or fail? p"),
        ("a\npass or fail? p", "  | a\n  | pass or fail? p"),
        ("\u202egnp.exe\u200b\ufeff\x9b", r"  | \u202egnp.exe\u200b\ufeff\x9b"),
        ("\u2028x\ud800\U000e0041", r"  | \u2028x\ud800\U000e0041"),
        ("[bold]Ünï 😀\t", "  | [bold]Ünï 😀\t"),
        (" ", "  | (empty)"),
    ],
)
def test_hostile_text_cannot_play_with_the_terminal(hostile: str, shown: str) -> None:
    assert terminal_safe(hostile) == shown


def test_a_right_answer_can_be_given_and_one_that_is_proposed_be_taken(store: LabelStore) -> None:
    lines = ["t", "c Lock it in the app.", "y", "c", "", "c", "Open the app,", "then tap  Lock. ", "", "n"]
    lines += ["take", "s", "c " + "x" * 20_001, "c again", "u", "p", "s", "correct So.", "y"]
    terminal = Terminal(*lines)
    asked = {"ask": terminal.ask, "say": terminal.say, "proposed": ["", "", "Ask \x1b[2Jus.", "", ""]}
    label_records(RECORDS[:5], store, by="feedback", definition="Banking.", **asked)  # type: ignore[arg-type]
    assert [(row.label, row.in_scope, row.correction) for row in store.labels()] == [
        ("fail", True, "Lock it in the app."),
        ("fail", False, "Open the app,\nthen tap  Lock."),
        ("fail", None, "Ask \x1b[2Jus."),
        ("pass", None, ""),  # what was written before an undo is gone
        ("fail", True, "So."),
    ]
    assert "Give one of p, f, c, s, u, q." in terminal.shown  # where nothing is proposed there is nothing to take
    assert "No right answer was given." in terminal.shown
    assert "at most 20,000 characters" in terminal.shown
    assert store.labels()[0].why == ""


def test_notes_are_shown_with_their_record_and_cannot_play_with_the_terminal(store: LabelStore) -> None:
    terminal = Terminal("s", "q")
    asked = {"ask": terminal.ask, "say": terminal.say, "notes": ["thumb up", "\x1b[2Jthumb down"]}
    label_records(RECORDS[:2], store, by="feedback", definition="Banking.", **asked)  # type: ignore[arg-type]
    first, second = terminal.shown.split("2 of 2")
    assert "  | thumb up" in first and "thumb down" not in first
    assert r"  | \x1b[2Jthumb down" in second
