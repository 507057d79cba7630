"""The pages that a browser gets: what this service is, and, where it is asked for, one to chat on.

Both hold nothing that is not public, so they need no key: the one to chat on asks for it, and sends it with each call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from starlette.types import Scope

CHAT = "/chat"
_FRONT = ("/", "/docs")


def has_chat_page(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is a page to chat on (``ONTOPIC_CHAT_PAGE``)."""
    return environment.get("ONTOPIC_CHAT_PAGE") == "1"


def is_page(scope: Scope) -> bool:
    """Whether a request is for a page, by somebody who reads pages."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    accepts = any(name == b"accept" and b"text/html" in value.lower() for name, value in scope["headers"])
    return (scope["path"] == CHAT and has_chat_page()) or (scope["path"] in _FRONT and accepts)


async def page(request: Request) -> HTMLResponse:
    """The page of a path that ``is_page`` knows."""
    name = "chat" if request.url.path == CHAT else "front"
    content, policy = _drawn(name, chat=has_chat_page(), keyed=os.environ.get("ONTOPIC_NO_AUTH") != "1")
    headers = {
        "content-security-policy": f"{policy}; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",  # of browsers that do not know frame-ancestors
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
        "vary": "accept",
    }
    return HTMLResponse(content, headers=headers)


@lru_cache
def _drawn(name: str, *, chat: bool, keyed: bool) -> tuple[str, str]:
    """A page, and its Content-Security-Policy."""
    from ontopic.reports.design import NOTHING, Allows, content_security_policy, draw_page

    allows, title = NOTHING, "A model that keeps to its subject"
    if name == "chat":
        allows, title = Allows(requests=True, scripts=("chat.js",)), "Ask the assistant"
    drawn = draw_page(title, f"{name}.html.jinja", allows=allows, chat=chat, keyed=keyed)
    return drawn, content_security_policy(allows)
