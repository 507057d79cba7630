"""The watcher finds what a page without escaping does, and what keeps people from reading one."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.hostile_texts import TEXTS
from browser.reading import keyboard_faults, violations
from browser.watched import NARROW, watched
from playwright.sync_api import Browser

_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>A page</title><main><h1>A page</h1>{}</main></html>'
)
_ACTS = ["script", "image", "svg link", "iframe", "form", "meta refresh", "pixel", "style"]


def page_of(body: str, folder: Path) -> Path:
    page = folder / "page.html"
    page.write_text(_PAGE.format(body), encoding="utf-8")
    return page


@pytest.mark.parametrize("name", _ACTS)
def test_a_text_that_gets_out_is_seen(browser: Browser, tmp_path: Path, name: str) -> None:
    with watched(browser, page_of(TEXTS[name], tmp_path)) as seen, pytest.raises(AssertionError):
        seen.assert_inert()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<p style='color:#999;background:#fff'>pale</p>", "color-contrast"),
        ("<img src='data:image/png;base64,AA'>", "image-alt"),
        ("<button></button>", "button-name"),
        ("<p tabindex=0 style='outline:none'>no ring</p>", "nothing shows the focus"),
        ("<p onclick='' style='cursor:pointer'>press me</p>", "no key reaches"),
        ("<button onfocus='this.blur()'>out of reach</button>", "never reaches"),
    ],
    ids=["contrast", "picture", "name", "focus", "mouse", "reach"],
)
def test_what_keeps_people_from_reading_is_seen(browser: Browser, tmp_path: Path, body: str, found: str) -> None:
    with watched(browser, page_of(body, tmp_path)) as seen:
        assert found in "\n".join([*violations(seen.page), *keyboard_faults(seen.page)])


def test_a_good_page_has_no_fault(browser: Browser, tmp_path: Path) -> None:
    body = "<a href='#more'>more</a> <details id=more><summary>whole</summary>text</details><button>press</button>"
    with watched(browser, page_of(body, tmp_path), width=NARROW) as seen:
        seen.use()
        seen.assert_inert()
        assert (violations(seen.page), keyboard_faults(seen.page), seen.overflow(), seen.sheets()) == ([], [], 0, 1)
    with watched(browser, page_of("<pre>" + "w" * 400, tmp_path), width=NARROW) as seen:
        assert seen.overflow() > 0
