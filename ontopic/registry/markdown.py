"""Markdown in which whatever was written by others is only read: model cards and descriptions in MLflow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_LINK = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)


def plain(value: Any) -> str:
    """A value in a line of Markdown that shows it as it is: no markup, no HTML, no hidden characters."""
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {plain(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(plain, value)) or "none"
    if value in (None, ""):
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = " ".join(str(value).split())
    text = "".join("\ufffd" if unicodedata.category(character)[0] == "C" else character for character in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    # A space of zero width keeps an address from becoming a link.
    return _LINK.sub("&#8203;", _MARKUP.sub(r"\\\1", text)).replace("@", "&#64;")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
