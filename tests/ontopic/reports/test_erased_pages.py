"""Erasing from our pages: a row that shows an erased text goes, and a page that shows one elsewhere goes as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader

from ontopic.reports import design
from ontopic.reports.design import Table, write_page
from ontopic.reports.parts import Answer, Answered, Turn
from ontopic.state.erased_files import erase_from_file
from ontopic.state.erasing import Erasing

BODY = """{% extends "base.html.jinja" %}{% import "parts.html.jinja" as parts %}{% block body %}
{{ parts.table(table) }}{% for each in answered %}{{ parts.answered(each) }}{% endfor %}{{ parts.text(said) }}
{% endblock %}"""
TEXTS = {
    "short": "hi Bob",
    "markup": "<b>my</b> \"card\" & who 'took' it?",
    "lines": "Zwei Zeilen\nüber Gebühren,\n\nund mehr",
    "override": "pay \u202eeurt\u202c now please",
    "long": "what happens to my account when I move abroad " * 20,
    "huge": "word and more words here " * 5_000,
}


def page(out: Path, *, row: str = "a", turn: str = "b", answer: str = "c", said: str = "d") -> Path:
    """A page with a text in a table, in a conversation, in an answer, and outside of all rows; others beside each."""
    answered = [
        Answered(
            question="kept question",
            turns=[Turn(speaker="User", text=turn)],
            answers=[Answer(name="version 1", text=answer), Answer(name="version 2", text="another")],
        ),
        Answered(question="the robin's question", answers=[Answer(name="version 1", text="the robin's answer")]),
    ]
    table = Table(caption="Rows", columns=["Text", "n"], rows=[[row, 1], ["the robin's row", 2]])
    write_page("A page", "test", out=out, table=table, answered=answered, said=said)
    return out


@pytest.fixture(autouse=True)
def _with_template(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = design._environment()
    loader = ChoiceLoader([environment.loader, DictLoader({"test": BODY})])  # type: ignore[list-item]
    monkeypatch.setattr(environment, "loader", loader)


@pytest.mark.parametrize("place", ["row", "turn", "answer"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_row_goes_and_the_others_stay(text: str, place: str, tmp_path: Path) -> None:
    out = page(tmp_path / "page.html", **{place: text})
    before = out.read_text(encoding="utf-8")
    with Erasing(tmp_path / "erasing") as erasing:
        erasing.add([], [text])
        assert erase_from_file(out, erasing)
        left = out.read_text(encoding="utf-8")
        assert not erase_from_file(out, erasing)
    assert before.count("<!--row-->") - left.count("<!--row-->") == 1
    stays = {"the robin&#39;s row", "the robin&#39;s question", "the robin&#39;s answer"}
    assert all(each in left for each in stays)
    assert ("kept question" in left) is (place == "row")
    assert "</main>" in left and left.count("<script>") == before.count("<script>") == 1


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_page_that_shows_it_elsewhere_goes(text: str, tmp_path: Path) -> None:
    out = page(tmp_path / "page.html", said=text)
    with Erasing(tmp_path / "erasing") as erasing:
        erasing.add([], [text])
        assert erase_from_file(out, erasing) and not out.exists()


def test_a_page_without_it_is_left_alone(tmp_path: Path) -> None:
    out = page(tmp_path / "page.html")
    before = out.read_bytes()
    with Erasing(tmp_path / "erasing") as erasing:
        erasing.add(["an-id"], ["something else entirely was said"])
        assert not erase_from_file(out, erasing)
    assert out.read_bytes() == before
