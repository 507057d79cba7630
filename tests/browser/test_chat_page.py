"""The service's chat page in a browser: a key is asked for, hostile answers are inert, thumbs and verdicts arrive."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loopback import Reply, running_server
from word_judge import CARD

from ontopic.config.settings import EndpointSettings
from ontopic.monitoring.standing import WindowLimits
from ontopic.monitoring.window import Counts, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Verdict
from ontopic.traffic.shadow import ShadowAnswer
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel, Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow
MODEL, VERSION = "ontopic-gardening", "gpt-4o"
HOSTILE = "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script> \u202egnp.exe"
SHOWN = HOSTILE.replace("\u202e", r"\u202e")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedModel]:
    state = tmp_path_factory.mktemp("chat")
    with running_server() as upstream:
        upstream.reply = lambda _: Reply(text=HOSTILE)
        behind = EndpointSettings(model=VERSION, base_url=upstream.url, max_retries=0)
        values: dict[str, Any] = {"model_version": VERSION, "model_name": MODEL, "traffic": state / "traffic.db"}
        with ServedModel(Serving(upstream=behind, state=state, chat_page=True, **values)) as model:
            yield model


@pytest.fixture
def page(browser: Browser, served: ServedModel) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    opened = context.new_page()
    opened.goto(served.base_url.removesuffix("/v1") + "/chat")
    yield opened
    context.close()


def enter(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use it").click()


def judge(root: Path) -> None:
    """Close a window with the newest record, whose answer fails, and keep what a challenger answered."""
    said = Verdict(outcome="fail", score=0.07, explanation=HOSTILE, judge_id="words")
    with TrafficStore(root / "traffic.db", MODEL) as traffic, WindowStore(root / "windows.db", MODEL) as windows:
        records = traffic.newest(1)
        windows.put(records, 1)
        windows.keep_verdicts({records[0].id: said}, "words")
        (window,) = windows.holding([records[0].id])
        judged, limits = Judged(records=records, verdicts=[said]), WindowLimits(threshold=0.9, least_records=1)
        result = window_result(judged, CARD, limits=limits, counts=Counts(n=1))
        windows.close_window(window, result, now=datetime.now(UTC))
        traffic.add_shadow(ShadowAnswer(record_id=records[0].id, model_version="3", answer=f"In spring. {HOSTILE}"))


def test_a_key_is_asked_for_and_kept_in_the_tab(page: Page, served: ServedModel) -> None:
    enter(page, "wrong")
    page.get_by_text("This API key is not valid").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    assert not page.get_by_label("Question").is_visible()
    enter(page, served.api_key)
    page.get_by_text(f"{MODEL}, version {VERSION}").wait_for()
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    assert page.get_by_label("API key").input_value() == ""
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_label("API key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_an_answer_its_verdict_and_what_somebody_thinks_of_it(page: Page, served: ServedModel) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    enter(page, served.api_key)
    page.get_by_label("Question").fill(HOSTILE)
    page.keyboard.press("Enter")
    answer = page.locator(".side").first
    answer.get_by_text(f"Version {VERSION}").wait_for()
    assert answer.locator(".text").inner_text() == SHOWN
    assert page.locator("#answers img, #answers script").count() == 0
    assert page.title() == "Ask the assistant"
    assert "On the subject: – not judged yet (truth is not judged)" in answer.inner_text()
    page.get_by_role("button", name="Good answer").click()
    page.get_by_text("The thumb is kept.").wait_for()
    assert page.get_by_role("button", name="Good answer").get_attribute("aria-pressed") == "true"
    page.get_by_text("What it should have said").first.click()
    page.get_by_role("textbox", name="What it should have said").fill("In the spring.")
    page.get_by_role("button", name="Send the correction").click()
    page.get_by_text("Thumb and correction are kept.").wait_for()
    root = served.log.parent
    with TrafficStore(root / "traffic.db", MODEL) as traffic:
        (kept,) = traffic.feedback()
    assert (kept.thumb, kept.correction) == ("down", "In the spring.")
    judge(root)
    answer.get_by_text("✕ no").wait_for()
    assert "score 0.07 (truth is not judged)" in answer.inner_text()
    other = page.locator(".side").nth(1)
    assert other.locator(".text").inner_text() == f"In spring. {SHOWN}"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert problems == []


def test_axe_finds_nothing(page: Page, served: ServedModel) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    enter(page, served.api_key)
    page.get_by_label("Question").fill("roses?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("button", name="Good answer").wait_for()
    assert axe.Axe().run(page).response["violations"] == []
