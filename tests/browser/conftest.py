"""One headless Chromium for the tests of a file: the machine's own, never one that is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # Playwright keeps an event loop running, in which no other file's asyncio.run may be
def browser() -> Iterator[Browser]:
    """The machine's Chromium, running."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e .[dev]")
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium is installed here (none of {', '.join(_NAMES)} is on the PATH)")
    with playwright.sync_playwright() as started:
        # the tests' settings of a proxy are not for pages of this machine
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--no-proxy-server"])
        yield chromium
        chromium.close()
