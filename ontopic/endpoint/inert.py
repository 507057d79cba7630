"""Text that others wrote, made harmless: for a terminal, a log, a page, a cause."""

from __future__ import annotations

import re
import unicodedata

_ANSI = re.compile(r"\x1b(?:\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """The text without escape sequences, control characters, marks that turn its direction, and half characters.

    Line ends and tabs stay.
    """
    if text.isascii() and text.replace("\n", " ").isprintable():
        return text
    text = _TURNING.sub("", _ANSI.sub("", text)).replace("\r\n", "\n").replace("\r", "\n")
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    return kept.encode(errors="replace").decode()


def one_line(text: str, limit: int) -> str:
    """The text inert, on one line, without invisible characters, cut to ``limit`` characters."""
    seen = "".join(c for c in inert(text[: 20 * limit]) if unicodedata.category(c) not in ("Cf", "Co", "Cn"))
    line = " ".join(seen.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"
