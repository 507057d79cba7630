"""Texts that are to be erased are known again in whatever form they stand somewhere, and others are not."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ontopic.state.erased_files import erase_from_value
from ontopic.state.erasing import Erasing, Order

TEXTS = [
    'Wie lange dauert "das" <b>Überweisen</b>\nnach Köln & zurück? 😀',
    "ein C:\\new\\table und ein \\* Stern",
    "a_b __init__ *c* [d](e) `f` | g",
    "振り込みはいつ届きますか。教えて",
    "כמה זמן לוקחת העברה לחשבון אחר",
    "short one",
    "🙂🏦",
    '{"a": "json that was pasted"}',
    "the fee of a transfer to an account abroad is what? " * 9,
]
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[1:-1],
    "JSON with its characters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "HTML": html.escape,
    "Python": lambda text: repr(text)[1:-1],
    "Markdown": lambda text: "".join(
        f"\\{c}" if c.isascii() and not c.isalnum() and not c.isspace() else c for c in text
    ),
    "other spaces": lambda text: "  ".join(text.split(" ")) + "\n",
    "a part": lambda text: f"**Question**\n\n{text}\n\n**Answer**\n\nNo.",
}


@pytest.fixture
def erasing(tmp_path: Path) -> Iterator[Erasing]:
    with Erasing(tmp_path / "erasing.db") as made:
        yield made


@pytest.mark.parametrize("form", FORMS)
def test_a_text_is_known_in_every_form(erasing: Erasing, form: str) -> None:
    erasing.add([], TEXTS)
    assert [text for text in TEXTS if not erasing.has_text(FORMS[form](text))] == []


def test_a_longer_text_is_known_inside_of_another_and_cut_short(erasing: Erasing) -> None:
    erasing.add([], TEXTS)
    assert erasing.has_text(f"the judge wrote: {TEXTS[0]}, and more")
    assert erasing.has_text(f"{TEXTS[3]}と書いた")
    assert erasing.has_text(TEXTS[-1][:240] + " …")
    assert not erasing.has_text(TEXTS[-1][:240])  # another may have asked just that


def test_a_text_of_several_lines_is_known_line_by_line(erasing: Erasing) -> None:
    erasing.add([], ["Dear bank,\nmy card was swallowed yesterday\nin Rome"])
    assert erasing.has_text("ERROR my card was swallowed yesterday")
    assert not erasing.has_text("Dear bank,")  # as others begin too
    erasing.spare(["Hello.\nMy card was swallowed yesterday"])
    assert not erasing.has_text("my card was swallowed yesterday")


def test_other_texts_are_not(erasing: Erasing) -> None:
    erasing.add([], TEXTS)
    for other in ("", " ", "one", "a short one", "short one more", "🙂", "Wie lange dauert das Überweisen", "a", "{}"):
        assert not erasing.has_text(other), other


def test_what_others_say_too_is_spared(erasing: Erasing) -> None:
    erasing.add(["1"], TEXTS)
    erasing.spare(["Short one!", "never said"])
    assert not erasing.has_text("short one")
    assert erasing.has_text("🙂🏦") and erasing.has_id("1") and not erasing.has_id("2")


@settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_is_known_escaped_or_not(erasing: Erasing, text: str) -> None:
    if not re.sub(r"\\[\s\S]?|[\s\"']", "", text):
        return  # says nothing
    erasing.add([], [text])
    assert erasing.has_text(text)
    assert erasing.has_text(json.dumps(text)[1:-1])


def test_another_process_goes_on_with_it(tmp_path: Path) -> None:
    order = Order(by="anna", what="a user was erased", registered_model="m", of_person=True)
    with Erasing(tmp_path / "e.db") as first:
        first.add(["1"], ["some text of five words"], conversations=["c"])
        assert first.order is None
        first.begin(order)
        first.count("pages", 2)
    with Erasing(tmp_path / "e.db") as second:
        assert (second.order, second.counts(), second.n()) == (order, {"pages": 2}, 1)
        assert second.has_text("some text of five words") and second.has_conversation("c")
        assert oct((tmp_path / "e.db").stat().st_mode)[-3:] == "600"
        second.end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "left"),
    [
        (["other", "c", "r2", []], ["other", "c", "r2", []]),
        (["a question", "c", "r1", []], None),
        ([TEXTS[0], "c", "", []], None),
        (["and then?", "c", "", [{"role": "user", "content": TEXTS[1]}]], None),
        ([TEXTS[0], "c", "r2", []], ["[erased]", "c", "r2", []]),  # another's, who said the same and more
        ([["nested"], "c", "r1", [[1]]], None),
    ],
)
def test_a_row_of_a_table_that_pandas_split_goes_whole_or_keeps_its_cells(
    erasing: Erasing, row: list[object], left: list[object] | None
) -> None:
    erasing.add(["r1"], TEXTS)
    table = {"columns": ["question", "chosen", "record_id", "history"], "data": [row, ["b", "c", "", []]]}
    written = erase_from_value({"tables": [table, {"columns": [], "data": []}]}, erasing)
    kept = [["b", "c", "", []]] if left is None else [left, ["b", "c", "", []]]
    assert written == {"tables": [table | {"data": kept}, {"columns": [], "data": []}]}
