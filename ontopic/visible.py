"""A stranger's text as it is seen: on a terminal, and on a page."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """A text on one line, where what could move the cursor, change colours, hide or reorder text is an escape."""
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    # C: control, format, surrogate, private, unassigned; Zl and Zp: separators of lines and paragraphs
    hidden = unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp")
    return ascii(character)[1:-1] if hidden and character != "\t" else character
