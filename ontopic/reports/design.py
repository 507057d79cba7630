"""The one design of all pages: Jinja2 templates, one style sheet, one small script, both inside of each page.

A page is one file that loads nothing and runs no script but its own, by its Content-Security-Policy. It is written by

    write_page("Window 7", "window.html.jinja", out=path, table=Table(...), plot=Chart(...))

The template lies in ``ontopic/reports/templates`` and begins with ``{% extends "base.html.jinja" %}``. It fills the
blocks ``kind`` (what page it is, in two words), ``head`` (usually a headline) and ``body``, and draws its context with
the macros of ``parts.html.jinja``, which it imports ``as parts``:

=================================  =================================================================================
``parts.headline(Headline)``       the first sentence, with a status
``parts.facts([(name, cell)])``    a definition list
``parts.table(Table)``             sorted by a click on a column, filtered by a word
``parts.tests([TestRow])``         each test with its margin to the limit
``parts.answered(Answered)``       a question and its answers side by side, the conversation unfolds
``parts.plot(Forest|Chart|Bars)``  a figure
``parts.cell(cell)``               one value, as in a table
``parts.text(str)``                a stranger's text, cut, its whole folded
=================================  =================================================================================

``{% call parts.fold("Summary") %}…{% endcall %}`` folds what is in it, ``{% call parts.section("Title") %}`` makes a
part of the page. Models are in ``parts.py`` and ``plots.py``. An unknown name in a template is an error.

Every text is a stranger's unless the template wrote it: it is escaped, and ``inert`` shows what would hide or reorder
it. Style attributes do not work, by the policy: use classes. What holds traffic must stand in a table's row, in
``answered``, or between ``<!--row-->`` and ``<!--/row-->``: ``ontopic.state.erased_files`` takes such a row out of a
page, and deletes a page that holds an erased text elsewhere.

Of what is served, ``allows`` opens the policy as far as it must: forms, requests to the same server, more scripts.
``content_security_policy`` is the same policy for a header.
"""

from __future__ import annotations

import base64
import hashlib
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict

from ontopic.reports.parts import Answered, Badge, Headline, Link, Table, TestRow, Turn
from ontopic.reports.plots import Bars, Chart, Forest
from ontopic.reports.shown import Whole, cut, described, inert, label
from ontopic.state.whole_file import whole_file
from ontopic.statistics.rates import Rate

__all__ = [
    "NOTHING",
    "Allows",
    "Answered",
    "Badge",
    "Bars",
    "Chart",
    "Forest",
    "Headline",
    "Link",
    "Table",
    "TestRow",
    "Turn",
    "content_security_policy",
    "draw_page",
    "write_page",
]
_STYLE, _SCRIPT = "page.css", "page.js"
_LONGEST = 1_000  # of a sentence; what may be longer goes through `cut` or `described`


class Allows(BaseModel):
    """What a page may do besides being read.

    Attributes:
        forms: send its forms to the server that it comes from.
        requests: ask that server by script.
        scripts: files in the folder of the templates that run in it besides the one that sorts tables.
    """

    model_config = ConfigDict(frozen=True)
    forms: bool = False
    requests: bool = False
    scripts: tuple[str, ...] = ()


NOTHING = Allows()
"""What a page in a file is allowed."""


def write_page(title: str, template: str, *, out: Path, **context: Any) -> None:
    """Draw a page into a file, whole or not at all; its folder is made.

    Args:
        template: a file in the folder of the templates.
        context: what it draws, by name.

    Raises:
        OSError: it can't be written.
    """
    page = draw_page(title, template, **context)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as part:
        part.write_text(page, encoding="utf-8")


def draw_page(title: str, template: str, *, allows: Allows = NOTHING, **context: Any) -> str:
    """A page as HTML; the arguments are those of ``write_page``."""
    scripts = [Markup(_asset(name)) for name in (_SCRIPT, *allows.scripts)]  # noqa: S704  # ours
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=content_security_policy(allows),
            style=Markup(_asset(_STYLE)),  # noqa: S704
            scripts=scripts,
            **context,
        )
    )


def content_security_policy(allows: Allows = NOTHING) -> str:
    """The policy of a page, which its own ``meta`` element holds it to; nothing from elsewhere, no script of others."""
    scripts = " ".join(_digest(_asset(name)) for name in (_SCRIPT, *allows.scripts))
    parts = ["default-src 'none'", f"style-src {_digest(_asset(_STYLE))}", f"script-src {scripts}", "base-uri 'none'"]
    parts.append(f"form-action {_SELF if allows.forms else _NONE}")
    if allows.requests:
        parts.append(f"connect-src {_SELF}")
    return "; ".join(parts)


_SELF, _NONE = "'self'", "'none'"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


@lru_cache
def _asset(name: str) -> str:
    return files("ontopic.reports").joinpath("templates", name).read_text(encoding="utf-8")


@lru_cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ontopic.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cut": cut, "described": described, "label": label, "number": _number}
    environment.tests |= {
        "badge": lambda value: isinstance(value, Badge),
        "link": lambda value: isinstance(value, Link),
        "rate": lambda value: isinstance(value, Rate),
        "nan": lambda value: isinstance(value, float) and math.isnan(value),
    }
    return environment


def _finalized(value: Any) -> Any:
    """Whatever a template puts out that it did not write itself."""
    if not isinstance(value, str) or isinstance(value, Markup | Whole):
        return value
    return inert(value if len(value) <= _LONGEST else f"{value[:_LONGEST]} …")


def _number(value: float) -> str:
    """An integer with its thousands, a share with three decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
