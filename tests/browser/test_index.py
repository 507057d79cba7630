"""The index page and the page of the assistant's life: a state folder full of strangers' texts does nothing there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from browser.hostile_state import hostile_state
from browser.hostile_texts import ALL
from browser.reading import keyboard_faults, violations
from browser.watched import NARROW, watched
from playwright.sync_api import Browser

from ontopic.commands.index_app import Index, serving
from ontopic.commands.options import Project
from ontopic.commands.page_server import free_ports
from ontopic.commands.tool_pages import Link, ToolPage
from ontopic.config.policy import Policy
from ontopic.config.settings import load_settings

_PATHS = ["", "life"]


@pytest.fixture(scope="module")
def index(banking: Policy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """The index of a hostile state folder, which is served."""
    from loopback import ROOT

    workspace = hostile_state(tmp_path_factory.mktemp("served") / "state", banking, ALL)
    workspace.reports.mkdir(exist_ok=True)
    (workspace.reports / f"window-{banking.registered_model}-1.html").write_text("<script>parent.owned=1</script>")
    tools = [ToolPage(name="MLflow", what="runs", links=[Link(text=ALL, url="http://127.0.0.1:9/")], state="ready")]
    tools.append(ToolPage(name="ZenML", what="pipelines", state="failed", said=ALL))
    settings = load_settings(ROOT / "configs" / "local.yaml")
    (port,) = free_ports(1)
    served = Index(Project(settings, banking, workspace), port=port, tools=tools)
    with serving(served):
        yield served


@pytest.mark.parametrize("path", _PATHS)
def test_no_text_of_a_stranger_does_anything(browser: Browser, index: Index, path: str) -> None:
    with watched(browser, index.url + path) as seen:
        seen.use()
        seen.assert_inert()
        assert "window.owned" in seen.text()
        assert not seen.hidden()
        seen.page.set_viewport_size({"width": NARROW, "height": 844})
        assert seen.overflow() <= 0
    assert len(seen.page.context.pages) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", _PATHS)
def test_everybody_can_read_it(browser: Browser, index: Index, path: str, scheme: Literal["light", "dark"]) -> None:
    with watched(browser, index.url + path, scheme=scheme) as seen:
        assert not violations(seen.page)
        if scheme == "light":
            assert not keyboard_faults(seen.page)


def test_it_says_all_without_a_script(browser: Browser, index: Index) -> None:
    with watched(browser, index.url, script=False) as seen:
        assert "is the champion" in seen.page.locator("main").inner_text()
