"""The pages that the project writes, in a browser: strangers' texts stay texts, and everybody can read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from browser.hostile_texts import ALL, cycled
from browser.made_pages import PAGES, plain
from browser.reading import keyboard_faults, violations
from browser.watched import NARROW, Watched, watched
from playwright.sync_api import Browser

from ontopic.config.policy import Policy

_HOSTILE_RECORDS, _FEW, _MANY = 60, 24, 450
_MOST_BYTES = 500_000
_SHEETS = {"gate": 2}
"""How many sheets a page prints to at most, where that is promised."""

_Made = dict[str, Path]


@pytest.fixture(scope="module", params=PAGES)
def made(request: pytest.FixtureRequest, banking: Policy, tmp_path_factory: pytest.TempPathFactory) -> _Made:
    """Each kind of page: of hostile texts, of a few ordinary records, and of many."""
    folder, write = tmp_path_factory.mktemp("pages"), PAGES[request.param]
    policy = banking.model_copy(update={"name": f"policy {ALL}", "subject": ALL})
    write(policy, folder / "hostile.html", texts=cycled, name=ALL, n=_HOSTILE_RECORDS)
    write(banking, folder / "few.html", texts=plain, name="of banking", n=_FEW)
    write(banking, folder / "many.html", texts=plain, name="of banking", n=_MANY)
    return {path.stem: path for path in folder.iterdir()} | {"kind": Path(request.param)}


@pytest.fixture(scope="module")
def opened(browser: Browser, made: _Made) -> Iterator[Watched]:
    """The page of a few ordinary records."""
    with watched(browser, made["few"]) as seen:
        yield seen


def test_no_text_of_a_stranger_does_anything(browser: Browser, made: _Made) -> None:
    with watched(browser, made["hostile"]) as seen:
        seen.assert_inert()
        assert "mark0 " in seen.text() or "window.owned" in seen.text()
        assert not seen.hidden(), seen.hidden()
        assert seen.overflow() <= 0
        seen.use()
        seen.assert_inert()
        seen.page.set_viewport_size({"width": NARROW, "height": 844})
        assert seen.overflow() <= 0


def test_the_page_is_small_and_its_own(browser: Browser, made: _Made) -> None:
    assert made["many"].stat().st_size < _MOST_BYTES
    assert made["hostile"].stat().st_size < 3 * _MOST_BYTES  # however long the texts
    with watched(browser, made["many"]) as seen:
        assert not seen.faults
        if most := _SHEETS.get(made["kind"].name):
            assert seen.sheets() <= most


def test_a_phone_shows_it_without_scrolling_sideways(opened: Watched) -> None:
    opened.page.set_viewport_size({"width": NARROW, "height": 844})
    assert opened.overflow() <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_weak_eyes_and_screen_readers_can_read_it(opened: Watched, scheme: Literal["light", "dark"]) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert not violations(opened.page)


def test_a_keyboard_is_enough(opened: Watched) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = false })")
    assert not keyboard_faults(opened.page)


def test_it_says_all_without_a_script(browser: Browser, made: _Made, opened: Watched) -> None:
    with watched(browser, made["few"], script=False) as seen:
        main = seen.page.locator("main")
        assert seen.page.locator("h1").inner_text() in main.inner_text()
        without = (main.text_content() or "").split()
    assert not seen.faults
    with_script = (opened.page.locator("main").text_content() or "").split()
    assert set(with_script) - set(without) <= {"Filter:"}
