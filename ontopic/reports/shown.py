"""Anybody's text as a page shows it: nothing in it hides, reorders or runs, and no huge one fills the page."""

from __future__ import annotations

import html
from typing import NamedTuple

from ontopic.visible import visible

CUT = 280
"""Characters of a text that stand in a cell; what is longer is cut, and its whole is folded."""
LINES = 6
"""And lines of it."""
MOST = 4_000
"""Of one that is folded; what is longer is cut there too, and it is said by how much."""
LABEL = 120
"""Of a name or a title, which stands in one line and is never folded."""
_JOINERS = "\u200c\u200d"  # inside words of Persian and Hindi, and inside emoji; they move nothing
_KEPT = frozenset("\n\t" + _JOINERS)


class Whole(str):
    """A text that is inert and as long as it is meant to be."""

    __slots__ = ()


class Shown(NamedTuple):
    """A text in two lengths.

    Attributes:
        head: what is seen at once.
        whole: what unfolds; empty where the head is all.
        left_out: how many characters of it are in neither.
    """

    head: Whole
    whole: Whole
    left_out: int


def inert(text: str) -> str:
    """A text whose right-to-left overrides, control and other hidden characters are visible escapes; lines stay."""
    if text.isascii() and text.isprintable():
        return text
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(each if each in _KEPT else visible(each) for each in lines)


def cut(text: str, at: int = CUT) -> Shown:
    """A text that is not trusted to be short."""
    head = "\n".join(text[:at].splitlines()[:LINES])
    if len(head) >= len(text.rstrip()):
        return Shown(Whole(inert(head)), Whole(), 0)
    whole = _within(text, MOST)
    left_out = len(text) - len(whole)
    more = " …" if left_out else ""
    return Shown(Whole(f"{inert(head.rstrip())} …"), Whole(f"{inert(whole)}{more}"), left_out)


def described(text: str) -> Whole:
    """What is read to who does not see a picture, of names that are not trusted to be short."""
    return Whole(inert(_within(text, MOST)))


def label(text: str) -> str:
    """A name or a title that is not trusted to be short; what hides in it is left to who puts it out."""
    return text if len(text) <= LABEL else text[:LABEL].rstrip() + " …"


def _within(text: str, most: int) -> str:
    """Its beginning that takes so many characters at most as a page is written, where a quote takes five."""
    begin = text[:most]
    while len(html.escape(inert(begin))) > 2 * most:
        begin = begin[: len(begin) // 2]
    return begin


def first_upper(sentence: str) -> str:
    """A sentence that another one ended with, on its own."""
    return sentence[:1].upper() + sentence[1:]
