"""The pages that the project writes, in a browser: strangers' texts stay texts, and everybody can read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.hostile_texts import ALL, cycled
from browser.made_pages import PAGES
from browser.watched import watched
from playwright.sync_api import Browser

from ontopic.config.policy import Policy

_HOSTILE_RECORDS = 60


@pytest.fixture(scope="module", params=PAGES)
def hostile_page(request: pytest.FixtureRequest, banking: Policy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of page, with a hostile text wherever one can be."""
    page = tmp_path_factory.mktemp("hostile") / "page.html"
    policy = banking.model_copy(update={"name": f"policy {ALL}", "subject": ALL})
    PAGES[request.param](policy, page, texts=cycled, name=ALL, n=_HOSTILE_RECORDS)
    return page


def test_no_text_of_a_stranger_does_anything(browser: Browser, hostile_page: Path) -> None:
    with watched(browser, hostile_page) as seen:
        seen.assert_inert()
        seen.use()
        seen.assert_inert()
