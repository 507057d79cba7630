"""What a page's file is called."""

from __future__ import annotations

import re

_LONGEST_PART = 60


def page_name(*parts: str) -> str:
    """A page's file name of these parts: of a stranger's text only what every file system takes, and not too much.

    What tells two pages apart must be in parts that are not cut, such as a window's id.
    """
    return "-".join(re.sub(r"[^A-Za-z0-9_.-]", "_", part)[:_LONGEST_PART] for part in parts) + ".html"
