"""The pictures of the docs, taken of a state folder in which `make run` has promoted (`make pictures`).

python docs/pictures.py [--state .ontopic] [--out docs/pictures] [--no-tools]

Each is what the machine's Chromium shows of the newest page of its kind, and of what `python run.py ui` opens. A page
that is not there is an error, lest a picture of an older look stay in the docs unseen.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from opened_pages import opened
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = {"reports": 1100, "tools": 1500}, 900
# the name of the picture, and the pages of a state folder's reports of which it shows the newest
PAGES = {
    "gate-report": "gate-*.html",
    "judge-card": "judge-card-*-told-the-scope.html",
    "guard-card": "guard-card-*.html",
    "traffic": "monitoring-*-version-1-*.html",
    "window": "window-*-version-2-*.html",
}
# the name of the picture, how the line begins in which `ui` prints the link, and where to go from there
TOOLS = {
    "ui": ("Index", ""),
    "mlflow-compare": ("MLflow, Champion against challenger", ""),
    "mlflow-model": ("MLflow, MLflow", "#/models/ontopic-banking/versions/2"),
    "mlflow-traces": ("MLflow, Experiment", "/traces"),
    "evidently": ("Evidently", ""),
    "zenml": ("ZenML", ""),
}
_DRAWN_MS = {"reports": 1_000, "tools": 30_000}


def newest(reports: Path, pattern: str) -> Path:
    """The newest page of that kind; what Evidently draws beside a gate's page is none."""
    found = [page for page in reports.glob(pattern) if not page.stem.endswith("-evidently")]
    found.sort(key=lambda page: page.stat().st_mtime)
    if not found:
        sys.exit(f"error: {reports} has no {pattern}; let `make run` come to a promotion there")
    return found[-1]


def take(browser: Browser, url: str, *, out: Path, kind: str) -> None:
    """Write what the top of a page looks like, once it has had time to draw itself."""
    width = WIDTH[kind]
    tab = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme="light")
    tab.goto(url, wait_until="load")
    tab.wait_for_timeout(_DRAWN_MS[kind])
    if (tour := tab.locator("text='Got it'")).count():  # MLflow opens with one
        tour.first.click()
    height = min(HEIGHT, tab.evaluate("document.documentElement.scrollHeight"))
    tab.screenshot(path=out, clip={"x": 0, "y": 0, "width": width, "height": height})
    tab.close()
    print(f"{out}: {url}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--no-tools", action="store_true", help="the reports alone")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: this machine has no Chromium; apt install chromium")
    pages = {name: newest(given.state / "reports", pattern) for name, pattern in PAGES.items()}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, page in pages.items():
            url = page.resolve().as_uri()
            take(browser, url, out=given.out / f"{name}.png", kind="reports")
        if not given.no_tools:
            with opened(given.state, [begins for begins, _ in TOOLS.values()]) as links:
                for name, (begins, path) in TOOLS.items():
                    found = [url for what, url in links.items() if what.startswith(begins)]
                    if not found:
                        sys.exit(f"error: `ui` printed no link of {begins}")
                    take(
                        browser,
                        found[0] + path,
                        out=given.out / f"{name}.png",
                        kind="reports" if name == "ui" else "tools",
                    )
        browser.close()


if __name__ == "__main__":
    main()
