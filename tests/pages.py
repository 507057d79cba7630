"""HTML pages as a browser shows them, and a text that tries to break out of one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HOSTILE = (
    '</script><script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'"> '
    "</head><!-- <b>bold</b> ![pixel](http://127.0.0.1:9/pixel.png) [click](javascript:alert(1)) "
)


def rendered(page: Path, profile: Path) -> str:
    """The page's elements as the browser has them, with the first table row folded out."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    text = page.read_text(encoding="utf-8")
    click = '<script>setTimeout(() => document.querySelector("td button").click(), 500)</script>'
    page = page.with_name("clicked.html")
    page.write_text(click.join(text.rsplit("</body>", 1)), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = [browser, *flags.split(), "--disable-component-update", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    return dom[: dom.index("<script")] + dom[dom.index('<div id="root_') : dom.index("var global = globalThis")]


def assert_no_script_is_ended(page: Path) -> None:
    """No text of :data:`HOSTILE` ends the script that holds the page's data."""
    text = page.read_text(encoding="utf-8")
    assert "document.title = " in text
    for markup in ('<script>document.title = "owned"', "<img src=x", "<b>bold", "<b>title", "<b>m"):
        assert markup not in text


def assert_no_text_is_markup(page: Path, profile: Path) -> None:
    """A browser shows the texts of a page, titled ``A <b>title</b>``, as text; the first row's answer is whole."""
    dom = rendered(page, profile)
    assert "<title>A &lt;b&gt;title&lt;/b&gt;</title>" in dom
    assert dom.count("&lt;img src=x onerror=") >= 3  # shown: in cells, and folded out
    assert "x" * 500 in dom
    for markup in ("<img", "<b>", "<i>", '="javascript:', '="http://127'):
        assert markup not in dom
