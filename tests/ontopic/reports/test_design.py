"""The design of all pages: no text in one runs, hides or reorders, and a plot's numbers are where they belong."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError
from pages import HOSTILE

from ontopic.reports import design
from ontopic.reports.design import Allows, Table, content_security_policy, draw_page, write_page
from ontopic.reports.parts import Answer, Answered, Badge, Column, Headline, Link, TestRow, Turn
from ontopic.reports.plots import Bar, Bars, Chart, Event, Forest, ForestRow, Level, Mark, Point, Series, Share, Tick
from ontopic.reports.shown import CUT, MOST, cut, inert
from ontopic.statistics.rates import Rate, rate

BODY = """{% extends "base.html.jinja" %}{% import "parts.html.jinja" as parts %}
{% block body %}{{ parts.headline(head) }}{{ parts.facts(facts) }}{{ parts.plot(plot) }}{{ parts.tests(tests) }}
{{ parts.table(table) }}{{ parts.answered(answered) }}{% call parts.fold(fold) %}{{ parts.text(fold) }}{% endcall %}
{% call parts.section(fold) %}{{ fold }}{% endcall %}{% endblock %}"""
OVERRIDE = "pay \u202eeurt\u202c\x1b[31m\u2066now\u2069"


@pytest.fixture(autouse=True)
def _with_template(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = design._environment()
    loader = ChoiceLoader([environment.loader, DictLoader({"test": BODY})])  # type: ignore[list-item]
    monkeypatch.setattr(environment, "loader", loader)


def drawn(text: str) -> str:
    """A page on which every part is given the same text."""
    mark = Mark(name=text, rate=rate(3, 9), role="champion")
    return draw_page(
        text,
        "test",
        head=Headline(status="failed", label=text, sentence=text, reason=text),
        facts=[(text, text), (text, Link(text=text, href=text))],
        plot=Forest(title=text, note=text, axis=text, rows=[ForestRow(label=text, marks=[mark], limit_text=text)]),
        tests=[TestRow(name=text, passed=False, sentence=text)],
        table=Table(caption=text, note=text, columns=[text, Column(name=text, wide=True)], rows=[[text, text]]),
        answered=Answered(
            question=text,
            about=text,
            turns=[Turn(speaker=text, text=text)],
            answers=[Answer(name=text, text=text, verdict=Badge(status="failed", text=text), why=text)],
        ),
        fold=text,
    )


def test_no_text_becomes_markup_wherever_it_stands() -> None:
    page = drawn(HOSTILE)
    assert page.count("&lt;/script&gt;") > 20
    for markup in ("<img", "<b>bold", 'javascript:alert(1)"', "</head><!--"):
        assert markup not in page.split("<body>")[1], markup
    assert page.count("<script>") == 1


def test_what_hides_or_reorders_text_is_seen_wherever_it_stands() -> None:
    page = drawn(OVERRIDE)
    assert not set("\u202e\u202c\u2066\u2069\x1b") & set(page)
    assert page.count(r"pay \u202eeurt\u202c\x1b[31m\u2066now\u2069") > 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("می‌خواهم", "می‌خواهم"),  # a joiner inside of a word
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        ("a\ud800", r"a\ud800"),
    ],
)
def test_inert(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_a_huge_text_is_cut_twice_and_what_is_left_out_is_said() -> None:
    assert cut("x" * CUT).whole == ""
    shown = cut("x" * 100_000)
    assert len(shown.head) == CUT + 2 and len(shown.whole) == MOST + 2 and shown.left_out == 100_000 - MOST
    quotes = cut('"' * 100_000)
    assert quotes.left_out == 100_000 - (len(quotes.whole) - 2) and len(quotes.whole) * 5 <= 2 * MOST + 20
    assert len(drawn("x" * 1_000_000)) < 1_000_000
    assert "96,000 more characters are not shown" in drawn("y" * 100_000)


@pytest.mark.parametrize(
    ("href", "leads"),
    [
        ("page.html", True),
        ("../evidence/a/gate.html#main", True),
        ("https://mlflow.example/#/runs", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        (" data:text/html,x", False),
        ("//elsewhere.example", False),
        ("java\nscript:alert(1)", False),
        ("file:///etc/passwd", False),
    ],
)
def test_only_a_file_beside_the_page_or_the_web_is_linked(href: str, leads: bool) -> None:
    assert bool(Link(text="t", href=href).target) is leads
    assert ('<a href="' in drawn(href).split('<main id="main">')[1]) is leads


def test_the_policy_lets_nothing_run_but_the_pages_own(tmp_path: Path) -> None:
    write_page("Title", "base.html.jinja", out=tmp_path / "deep" / "page.html")
    page = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert found and found[1].replace("&#39;", "'") == content_security_policy()
    assert "default-src 'none'" in content_security_policy() and "unsafe" not in content_security_policy()
    assert not re.search(r"\sstyle=|\son\w+=", page), "the policy would stop it"
    served = content_security_policy(Allows(forms=True, requests=True))
    assert "form-action 'self'" in served and "connect-src 'self'" in served


def test_an_unknown_name_in_a_template_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UndefinedError, match="head"):
        draw_page("Title", "test")


def test_a_table_says_what_it_leaves_out_and_draws_each_kind_of_cell() -> None:
    rows = [[i, 0.5, rate(1, 4), Badge(status="passed", text="yes"), None] for i in range(30)]
    table = Table.first(rows, 20, lies="they are in the record.", caption="Cells", columns=["a", "b", "c", "d", "e"])
    assert len(table.rows) == 20 and table.note == "10 more are not shown here; they are in the record."
    with pytest.raises(ValueError, match="a cell a column"):
        Table(caption="x", columns=["a"], rows=[[1, 2]])


@pytest.mark.parametrize(
    ("relation", "measured", "margin"), [("at least", 0.9, 0.1), ("above", 0.7, -0.1), ("at most", 0.7, 0.1)]
)
def test_a_margin_is_positive_on_the_right_side(relation, measured: float, margin: float) -> None:
    row = TestRow(name="n", passed=True, sentence="s", measured=measured, bound="low", relation=relation, limit=0.8)
    assert row.margin == pytest.approx(margin) and row.held == f"lower bound {relation} 0.8"


def test_a_forest_has_one_axis_for_all_rows() -> None:
    rows = [
        ForestRow(label="a", marks=[Mark(name="m", rate=Rate(value=0.5, low=0.4, high=0.6, n=9))], limit=0.8),
        ForestRow(label="b", marks=[Mark(name="m", rate=Rate(value=-0.2, low=-0.3, high=0.1, n=9))]),
        ForestRow(label="c", marks=[Mark(name="m", rate=rate(0, 0))]),
    ]
    forest = Forest(title="t", rows=rows)
    lines = [each for each in forest.drawing().shapes if each.kind == "line" and each.look == "of-neutral"]
    ends = [(line.x, line.x2) for line in lines]
    # The axis goes from -0.4 to 1 over 96 of 100 percent.
    assert ends == [(pytest.approx(2 + 96 * low / 1.4, abs=0.01), pytest.approx(2 + 96 * high / 1.4, abs=0.01))
                    for low, high in ((0.8, 1.0), (0.1, 0.5))]  # fmt: skip
    limit = next(each for each in forest.drawing().shapes if each.look == "limit")
    assert limit.x == pytest.approx(2 + 96 * 1.2 / 1.4, abs=0.01)
    assert "m: no records" in [each.text for each in forest.drawing().shapes]
    assert "a: m 0.500 [0.400, 0.600] (n=9)" in forest.described


def test_a_chart_is_of_straight_lines_and_says_its_end() -> None:
    points = [Point(x=i, y=0.2 * i, low=0.1 * i, high=0.3 * i) for i in range(4)]
    chart = Chart(
        title="t",
        series=[Series(name="score", points=[*points, Point(x=9, y=math.nan)])],
        levels=[Level(y=0.85, label="threshold")],
        events=[Event(x=2, label="promotion")],
        ticks=[Tick(x=i, label=str(i)) for i in range(4)],
    )
    looks = [each.look for each in chart.drawing().shapes]
    assert looks.count("of-neutral joining") == 3 and looks.count("limit") == 1 and looks.count("event") == 1
    assert [s.text for s in chart.drawing().shapes if s.y == 238] == ["0", "2", "3"]
    assert "threshold at 0.85" in chart.described


def test_bars_fill_the_width() -> None:
    bars = Bars(title="t", bars=[Bar(label="en", shares=[Share(name="pass", n=3), Share(name="fail", n=1)])])
    widths = [each.x2 for each in bars.drawing().shapes if each.kind == "bar"]
    assert widths == [75.0, 25.0] and bars.described == "en: 3 pass, 1 fail"
    assert draw_page("t", "base.html.jinja")


def test_no_number_lies_on_its_limit() -> None:
    marks = [Mark(name="this", rate=rate(97, 100))]
    drawing = Forest(
        title="t", rows=[ForestRow(label="r", marks=marks, limit=0.8, limit_text="at least 0.8")]
    ).drawing()
    (line,) = (shape for shape in drawing.shapes if shape.look == "limit")
    (number,) = (shape for shape in drawing.shapes if shape.look == "number")
    assert number.anchor == "end" and number.x < line.x


@pytest.mark.parametrize(("at", "anchor"), [([0.9, 1.0], "start"), ([0.0, 0.1], "end")])
def test_a_levels_name_stands_where_no_dots_are(at: list[float], anchor: str) -> None:
    points = [Point(x=x, y=0.84) for x in at] + [Point(x=0.0, y=0.1), Point(x=1.0, y=0.1)]
    chart = Chart(title="t", series=[Series(name="s", points=points)], levels=[Level(y=0.85, label="threshold")])
    (name,) = (shape for shape in chart.drawing().shapes if shape.text == "threshold")
    assert name.anchor == anchor
