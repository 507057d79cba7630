"""A page in headless Chromium, and all that it did which no page of ours may do."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Request

Scheme = Literal["light", "dark"]
WIDE, NARROW = 1280, 390
_HERE = ("", "127.0.0.1", "localhost")
# What becomes of a text that got out: elements and attributes that no page of ours has.
_FOREIGN = """() => {
  const found = [...document.querySelectorAll(
    'iframe, object, embed, base, math, marquee, foreignObject, meta[http-equiv=refresh i], animate, video, audio')]
    .map(e => e.outerHTML.slice(0, 200));
  const script = /^[\\s\\x00-\\x20]*(javascript|vbscript|data|file):/i;
  for (const e of document.querySelectorAll('*'))
    for (const a of e.attributes) {
      const address = ['href', 'xlink:href', 'src', 'action', 'formaction', 'data', 'poster'].includes(a.name);
      const inline = e.matches('img, image, link[rel~=icon]') && /^data:image\\/(png|svg\\+xml)[;,]/.test(a.value);
      if (a.name.startsWith('on') || a.name === 'srcdoc' || (address && script.test(a.value) && !inline))
        found.push(`${e.tagName} ${a.name}=${a.value.slice(0, 120)}`);
    }
  return found;
}"""

_WRITE = """text => {
  for (const box of document.querySelectorAll('input[type=search], input[type=text], input:not([type])')) {
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(box, text);
    for (const kind of ['input', 'change', 'keyup']) box.dispatchEvent(new Event(kind, {bubbles: true}));
  }
}"""
_PRESS = """() => {
  for (const each of document.querySelectorAll('details')) each.open = true;
  for (const each of [...document.querySelectorAll('button, th, summary ~ * [role=button]')].slice(0, 60))
    if (!each.disabled && !(each.type === 'submit' && each.form)) each.click();
  for (const each of [...document.querySelectorAll('svg circle, svg rect, svg path')].slice(0, 20))
    for (const kind of ['mouseover', 'mousemove']) each.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
}"""


@dataclass
class Watched:
    """A page that is open, and what it did.

    Attributes:
        page: Playwright's.
        faults: what it did that it may not: dialogs, errors, requests to elsewhere; in the order of time.
    """

    page: Page
    faults: list[str] = field(default_factory=list)

    def text(self) -> str:
        """All text in the page, shown or folded."""
        return str(self.page.evaluate("document.body.textContent"))

    def hidden(self) -> list[str]:
        """Characters in it that hide or turn around others, other than what joins letters."""
        return sorted(
            {
                ascii(each)
                for each in self.text() + self.page.title()
                if unicodedata.category(each)[0] == "C" and each not in "\n\t\u200c\u200d"
            }
        )

    def foreign(self) -> list[str]:
        """Elements and attributes that a stranger's text has become."""
        return list(self.page.evaluate(_FOREIGN))

    def assert_inert(self) -> None:
        """No stranger's script has run, nothing was asked of elsewhere, and no text has become markup."""
        self.page.wait_for_timeout(50)  # what runs by itself runs soon
        assert not self.faults, self.faults[:5]
        assert self.page.evaluate("window.owned === undefined && document.title !== 'owned'"), "a script ran"
        assert not (foreign := self.foreign()), foreign[:5]

    def assert_not_owned(self) -> None:
        """As ``assert_inert``, of another tool's page: its own errors, and what it draws texts with, are its own."""
        self.page.wait_for_timeout(50)
        acts = [fault for fault in self.faults if not fault.startswith(("console: ", "error: "))]
        assert not acts, acts[:5]
        assert self.page.evaluate("window.owned === undefined && document.title !== 'owned'"), "a script ran"

    def use(self) -> None:
        """Open what folds, write into what filters, press the buttons that send nothing, point at marks of plots."""
        for text in ("<img src=x onerror=window.owned=1>", ""):
            self.page.evaluate(_WRITE, text)
        self.page.evaluate(_PRESS)
        self.page.wait_for_timeout(100)  # what searches waits for more letters

    def overflow(self) -> int:
        """By how many px the whole page scrolls sideways."""
        return int(self.page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth"))

    def sheets(self) -> int:
        """On how many sheets of A4 it prints."""
        return len(re.findall(rb"/Type\s*/Page\b", self.page.pdf(format="A4")))


@contextlib.contextmanager
def watched(
    browser: Browser,
    address: Path | str,
    *,
    width: int = WIDE,
    scheme: Scheme = "light",
    script: bool = True,
    headers: dict[str, str] | None = None,
) -> Iterator[Watched]:
    """A page of a file or of a server on loopback, loaded, watched from before its first byte.

    Args:
        script: whether scripts run in it.
        headers: of each request.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        java_script_enabled=script,
        extra_http_headers=headers,
    )
    try:
        yield _opened(context, address.as_uri() if isinstance(address, Path) else address)
    finally:
        context.close()


def _opened(context: BrowserContext, address: str) -> Watched:
    context.route(lambda url: not _is_here(url), lambda route: route.abort())
    seen = Watched(context.new_page())
    seen.page.set_default_timeout(60_000)  # a busy machine is no fault

    def asked(request: Request) -> None:
        if not _is_here(request.url):
            seen.faults.append(f"asked for {request.url[:200]}")

    def said(message: Any) -> None:
        if message.type == "error":
            seen.faults.append(f"console: {message.text[:300]}")

    def dialog(shown: Any) -> None:
        seen.faults.append(f"dialog: {shown.message[:100]}")
        shown.dismiss()

    context.on("request", asked)
    context.on("page", lambda page: seen.faults.append(f"another page: {page.url[:200]}"))
    seen.page.on("console", said)
    seen.page.on("dialog", dialog)
    seen.page.on("pageerror", lambda error: seen.faults.append(f"error: {str(error)[:300]}"))
    seen.page.on("framenavigated", lambda frame: _went(seen, frame.url, address))
    seen.page.goto(address, wait_until="load")
    return seen


def _went(seen: Watched, url: str, address: str) -> None:
    if urlsplit(url)[:3] != urlsplit(address)[:3] and not url.startswith(_site(address)):
        seen.faults.append(f"went to {url[:200]}")


def _site(address: str) -> str:
    parts = urlsplit(address)
    return address if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}/"


def _is_here(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or (
        parts.scheme in ("http", "https", "ws") and parts.hostname in _HERE
    )
