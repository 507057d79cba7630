"""A drawn page as a reader has it: its texts without markup, and whether any of them became markup."""

from __future__ import annotations

import html
import re
from pathlib import Path

from pages import HOSTILE

_MARKUP = ("<img", "<b>bold", "<b>m</b>", "<i>judge", 'javascript:alert(1)"', "</head><!--", '="http://127')


def text_of(page: Path) -> str:
    """What stands on a page, with single spaces."""
    content = page.read_text(encoding="utf-8").split('<main id="main">')[1].split("</main>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", content))).replace("\u00a0", " ")


def assert_inert(page: Path, *, least: int) -> None:
    """No text of :data:`pages.HOSTILE` is markup, and it is shown so often at least; one script, the page's own."""
    content = page.read_text(encoding="utf-8")
    body = content.split("<body>")[1]
    for markup in _MARKUP:
        assert markup not in body, markup
    assert content.count("<script>") == 1 and "owned</title>" not in content
    assert content.count(html.escape(HOSTILE.split()[0])) >= least
    assert len(content.encode()) < 500_000
