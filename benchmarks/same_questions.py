"""Four questions, and how many clicks and seconds away their answers are: on OnTopic's pages, in MLflow, in Evidently.

    python benchmarks/same_questions.py [--state .ontopic]

Of a state folder in which `make run` has promoted version 2, and of what `python run.py ui` opens. A path is the
shortest that we found from the page that a tool opens with; the script walks it in Chromium and fails where the answer
does not come into sight. Seconds are from opening the first page until then, each link clicked as soon as it is there,
so they are the machine's, and none of a reader's. What a tool does not know at all has no path.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, TimeoutError, sync_playwright
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

from opened_pages import opened  # noqa: E402

WHY, WORSE, DRIFT, WHO = (
    "why was version 2 promoted",
    "which answers got worse",
    "is it drifting",
    "who approved",
)
_MOST_S = 90


class Way(BaseModel):
    """A way to an answer.

    Attributes:
        start: how the line of `ui` begins whose link is opened first.
        clicks: CSS or text selectors of what is clicked, in order.
        answer: a selector of what answers the question.
    """

    model_config = ConfigDict(frozen=True)
    question: str
    tool: str
    start: str
    clicks: list[str] = []
    answer: str


_MODEL = ["text=Model training", "a:has-text('Models')", "a:has-text('ontopic-')"]
WAYS = [
    Way(
        question=WHY,
        tool="OnTopic",
        start="Index",
        clicks=["a:has-text('the gate of version 2')"],
        answer="text=may replace version 1",
    ),
    Way(
        question=WORSE,
        tool="OnTopic",
        start="Index",
        clicks=["a:has-text('the gate of version 2')"],
        answer="h2:has-text('Answers that got worse')",
    ),
    Way(question=DRIFT, tool="OnTopic", start="Index", answer="text=Its newest window"),
    Way(question=WHO, tool="OnTopic", start="Index", answer="text=by the loop"),
    Way(
        question=WHY,
        tool="MLflow",
        start="MLflow, MLflow",
        clicks=[*_MODEL, "text=Description"],
        answer="text=/is the champion/",
    ),
    Way(
        question=WORSE,
        tool="MLflow",
        start="MLflow, Champion against challenger",
        answer="text=/gate answers of v1/",
    ),
    Way(question=WHO, tool="MLflow", start="MLflow, MLflow", clicks=_MODEL, answer="text=/the loop/"),
    Way(
        question=DRIFT,
        tool="Evidently",
        start="Evidently",
        clicks=["a:has-text('ontopic-')"],
        answer="text=/Guardrail score/",
    ),
]


class Walked(BaseModel):
    """A way that was walked: how long it took to the answer, ``None`` where that did not come into sight."""

    way: Way
    seconds: float | None


def walk(browser: Browser, way: Way, *, url: str) -> Walked:
    """Walk a way in a browser that has never been there."""
    tab = browser.new_context(viewport={"width": 1280, "height": 1100}).new_page()
    tab.set_default_timeout(_MOST_S * 1000)
    begin = time.perf_counter()
    try:
        tab.goto(url, wait_until="commit")
        for selector in way.clicks:
            tab.locator(selector).first.click()
        tab.locator(way.answer).first.wait_for(state="visible")
        return Walked(way=way, seconds=time.perf_counter() - begin)
    except TimeoutError:
        return Walked(way=way, seconds=None)
    finally:
        tab.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: this machine has no Chromium; apt install chromium")
    starts = sorted({way.start for way in WAYS})
    walked: list[Walked] = []
    with opened(given.state, starts) as links, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for way in WAYS:
            url = next((url for what, url in links.items() if what.startswith(way.start)), None)
            walked.append(walk(browser, way, url=url) if url else Walked(way=way, seconds=None))
        browser.close()
    table = Table("question", "tool", "clicks", "seconds", title=f"load {os.getloadavg()[0]:.1f}")
    for each in walked:
        took = "not found" if each.seconds is None else f"{each.seconds:.1f}"
        table.add_row(each.way.question, each.way.tool, str(len(each.way.clicks)), took)
    Console().print(table)
    sys.exit(any(each.seconds is None for each in walked))


if __name__ == "__main__":
    main()
