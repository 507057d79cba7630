"""How many clicks and seconds it takes to find four answers: on OnTopic's index page, in MLflow and in Evidently.

python benchmarks/answers_found.py --state .ontopic [--rounds 3]

Of one state folder in which `make run` has promoted, so that MLflow and Evidently show all that OnTopic has logged
there. A walk begins at the page that `python run.py ui` links to, and follows links and buttons by their words until
the words of the answer are on the page: a walk that somebody who knows the tool would take, in Chromium. A question
that no page answers has no walk. Seconds are those of the pages, not of a person who reads them; the median of the
rounds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from opened_pages import opened  # noqa: E402

_MOST_MS = 40_000
PROMOTED, WORSE, DRIFT, APPROVED = (
    "why was version 2 promoted",
    "which answers got worse",
    "is it drifting",
    "who approved",
)
Walk = tuple[list[str], str]
"""What is clicked, one after the other, as selectors; and a selector of what answers."""
GATE = "a[href*='reports/gate-']:not([href*='evidently'])"
# MLflow greets who is new with a tour, and its registry with a dialog: a click each.
REGISTRY = [
    "text=Got it",
    "text='Model training'",
    "a[href='#/models']",
    "[role=dialog] button >> nth=0",
    "a[href='#/models/ontopic-banking']",
]
WALKS: dict[str, dict[str, Walk | None]] = {
    "OnTopic": {
        PROMOTED: ([GATE], "text=/may replace version 1/"),
        WORSE: ([GATE], "text=/Answers that got worse/"),
        DRIFT: ([], "text=/threshold 0.85/"),
        APPROVED: ([], "text=/promoted .* by the loop/"),
    },
    "MLflow": {
        PROMOTED: (REGISTRY, "text=/is the champion/"),
        # By the link that `ui` prints: all answers of both models, side by side, unsorted.
        WORSE: ([], "text=/Comparing/"),
        DRIFT: None,
        APPROVED: (REGISTRY, "text=/promoted by the loop/"),
    },
    "Evidently": {
        PROMOTED: None,
        WORSE: None,
        DRIFT: ([], "text=/guardrail score .* Threshold/"),
        APPROVED: None,
    },
}
# where a walk begins: how the line begins in which `ui` prints the link
STARTS = {"OnTopic": "Index", "MLflow": "MLflow, Experiment", "Evidently": "Evidently"}
COMPARED = "MLflow, Champion against challenger"


def walked(browser: Browser, url: str, *, walk: Walk) -> float:
    """Seconds of a walk."""
    clicks, answer = walk
    page: Page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.set_default_timeout(_MOST_MS)
    try:
        start = time.monotonic()
        page.goto(url, wait_until="domcontentloaded")
        for selector in clicks:
            page.locator(selector).first.click()
        page.locator(answer).first.wait_for()
        return time.monotonic() - start
    finally:
        page.close()


def main() -> None:
    """Walk all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, opened(given.state, list(STARTS.values())) as links:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        print(f"| | {' | '.join(WALKS)} |\n|---|{'---|' * len(WALKS)}")
        for question in (PROMOTED, WORSE, DRIFT, APPROVED):
            cells = []
            for tool, walks in WALKS.items():
                walk = walks[question]
                if walk is None:
                    cells.append("not there")
                    continue
                begins = COMPARED if (tool, question) == ("MLflow", WORSE) else STARTS[tool]
                url = next(found for what, found in links.items() if what.startswith(begins))
                try:
                    took = [walked(browser, url, walk=walk) for _ in range(given.rounds)]
                except TimeoutError as error:
                    cells.append(f"not found: {str(error).splitlines()[0][:80]}")
                    continue
                cells.append(f"{len(walk[0])}, {statistics.median(took):.1f} s")
            print(f"| {question} | {' | '.join(cells)} |", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
