"""What a server says where it does not answer, in the many forms that servers have for it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ontopic.endpoint.inert import one_line

MOST_WORDS = 200
"""The most characters of a server's own words in a cause."""

Final = Literal["key", "quota", "model", "refused"]

_STATUS = {  # of an error in a reply whose own status says success
    429: ("insufficient_quota", "rate_limit", "ratelimit", "too_many_requests", "throttl", "resource_exhausted"),
    503: ("overloaded", "unavailable", "capacity", "try again later", "model is loading", "currently loading"),
    500: ("server_error", "internal_error", "internal server error", "internalservererror", "api_error"),
    504: ("timeout", "timed out"),
    401: ("invalid_api_key", "authentication", "unauthenticated", "unauthorized", "incorrect api key"),
    403: ("permission",),
    404: ("model_not_found", "not_found_error", "notfounderror"),
}
_QUOTA = re.compile(
    r"insufficient[_ ](user[_ ])?(quota|balance|credit|fund)|billing_(hard_limit|not_active)|billing hard limit"
    r"|out of credits|credit balance is too low|account_deactivated|arrearage|payment required",
    re.I,
)
_QUOTA_FOR_NOW = re.compile(r"exceeded your current quota", re.I)  # of a minute, where a time to wait is named
_WAIT = re.compile(r"retry|try again|per (minute|second|hour)", re.I)
_KEY = re.compile(
    r"invalid_api_key|api_key_invalid|invalid_authentication|unauthenticated"
    r"|api[ _-]?key[^.]{0,60}(invalid|not valid|incorrect|expired|missing|required|not found)"
    r"|(invalid|incorrect|expired|missing|no) (\w+ )?api[ _-]?key",
    re.I,
)
_MODEL = re.compile(
    r"model_not_(found|exist|available)|deploymentnotfound|(unknown|invalid|unsupported)[_ ]model|no such model"
    r"|model\b.{0,80}(not found|does ?n[o']t exist|not exist|not available|no such|decommissioned|deprecated|retired)"
    r"|does not support (chat|generate)|not a chat model",
    re.I | re.S,
)
_RECORD = re.compile(
    r"content[_ ](management|policy|filter)|content_policy|responsible ?ai|moderation|flagged|data_inspection|safety"
    r"|context[_ ](length|window|size)|maximum context|string_above_max_length|too many tokens|reduce the length"
    r"|(prompt|input|request|message)s?\b.{0,40} too (long|large)|longer than .{0,60}(context|max)|inappropriate",
    re.I | re.S,
)
OPTIONS = {
    "response_format": ("response_format", "json_schema", "structured output", "guided", "grammar"),
    "logprobs": ("logprobs",),
    "temperature": ("temperature",),
}
"""The options that not every server knows, with the words by which servers name them."""

_MAY_HOLD_ERROR = re.compile(rb'"(?:error|errors|detail|code)"')
_SOME_OPTION = re.compile(r"parameter|unsupported|not supported|unknown field|unexpected|extra (inputs|fields)", re.I)


@dataclass(frozen=True)
class ServerError:
    """An error that a server tells.

    Attributes:
        status: of HTTP, or the one that an error in a reply of status 200 amounts to; 200 where it amounts to none.
        told: all that it says, codes and types included: to look for words in.
        words: its message, inert, on one line; empty where it has none.
        is_page: whether it is an HTML page, as of a proxy, and not the LLM server's own word.
    """

    status: int
    told: str = ""
    words: str = ""
    is_page: bool = False

    @property
    def final(self) -> Final | None:
        """What has to be mended before any request can succeed; ``None`` where another one may."""
        if self._is_quota():
            return "quota"
        if self.status == 401 or (self.status in (200, 400, 403, 422) and _KEY.search(self.told)):
            return "key"
        if self.status in (407, 451) or (self.status == 403 and not self.is_about_the_record):
            return "refused"
        if self.status in (404, 405, 410) and not self.named_option(OPTIONS):
            return "model"
        about_the_model = _MODEL.search(self.told) and not self.named_option(OPTIONS)
        return "model" if self.status in (200, 400, 422) and about_the_model else None

    def _is_quota(self) -> bool:
        if self.status == 402:
            return True
        if self.status not in (200, 400, 403, 429):
            return False
        for_good = _QUOTA_FOR_NOW.search(self.told) and not _WAIT.search(self.told)
        return bool(_QUOTA.search(self.told) or for_good)

    @property
    def is_certain(self) -> bool:
        """Whether what is ``final`` cannot come of what one record says."""
        return self.final in ("key", "quota") and self.status in (401, 402, 429)

    @property
    def is_about_the_record(self) -> bool:
        """Whether the record is too long, or a filter does not let it pass."""
        return self.status < 500 and not self.is_page and bool(_RECORD.search(self.told))

    def named_option(self, sent: Iterable[str]) -> str | None:
        """The option of those sent that it names."""
        told = self.told.lower()
        return next((n for n, words in OPTIONS.items() if n in sent and any(w in told for w in words)), None)

    def refused_option(self, sent: Iterable[str]) -> str | None:
        """The option to leave out: one that it names, else the first that not every server knows."""
        sent = set(sent)
        if self.is_about_the_record or self.final:
            return None
        if (named := self.named_option(sent)) or self.status not in (400, 422):
            return named
        doubtful = [name for name in OPTIONS if name != "temperature" or _SOME_OPTION.search(self.told)]
        return next((name for name in doubtful if name in sent), None)


def read_error(status: int, body: bytes) -> ServerError | None:
    """The error in the reply to a request; ``None`` where it has success's status and none in it."""
    if 200 <= status < 300 and not _MAY_HOLD_ERROR.search(body):
        return None  # most replies, which need not be read twice
    text = body.decode(errors="replace")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if status >= 300 or status < 200:
        if content is None:
            return ServerError(status, text[:10_000], page_words(text), is_page=_is_page(text))
        return ServerError(status, _all_of(content), _message(content))
    if isinstance(content, list) and len(content) == 1:  # Google
        content = content[0]
    if not isinstance(content, dict) or not (content.get("error") or _is_error(content)):
        return None
    told = _all_of({name: content[name] for name in content if name != "choices"})
    return ServerError(_status_of(content, told), told, _message(content))


def page_words(text: str) -> str:
    """The title of an HTML page, or its text, or the text of what is none."""
    if not _is_page(text):
        return one_line(text, MOST_WORDS)
    title = re.search(r"<title[^>]*>(.*?)</title", text[:100_000], re.I | re.S)
    if title and title[1].strip():
        return one_line(html.unescape(title[1]), MOST_WORDS)
    shown = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", text[:100_000])
    return one_line(html.unescape(re.sub(r"<[^>]*>", " ", shown)), MOST_WORDS)


def _is_page(text: str) -> bool:
    return bool(re.match(r"\s*<(!doctype|html|head|body|h1|title|center|\?xml)\b", text[:1000], re.I))


def _is_error(content: Mapping[str, Any]) -> bool:
    """Whether an object without ``error`` is one all the same: vLLM's, FastAPI's, Cloudflare's."""
    if content.get("choices"):
        return False
    says = content.get("detail") or content.get("errors") or (content.get("code") and content.get("message"))
    return content.get("object") == "error" or bool(says)


def _status_of(content: Mapping[str, Any], told: str) -> int:
    error = content.get("error")
    for where in (error, content):
        if isinstance(where, dict):
            for name in ("status", "status_code", "code", "http_status"):
                given = where.get(name)
                number = int(given) if isinstance(given, str) and re.fullmatch(r"\d{3}", given) else given
                if type(number) is int and 400 <= number <= 599:
                    return number
    told = told.lower()
    return next((status for status, words in _STATUS.items() if any(word in told for word in words)), 200)


def _all_of(content: Any) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)[:10_000]
    except RecursionError:
        return ""


def _message(content: Any) -> str:
    """A server's sentence, from wherever servers put it, and its code where it has one."""
    if isinstance(content, list):
        content = content[0] if content else {}
    outer: Mapping[str, Any] = content if isinstance(content, dict) else {"message": content}
    errors = outer.get("errors")
    error = outer.get("error") or (errors[0] if isinstance(errors, list) and errors else None) or outer
    if not isinstance(error, dict):
        error = {"message": error}
    said = next((text for where in (error, outer) for text in _sentences(where) if text), "")
    code = error.get("code") or error.get("type")
    named = code if isinstance(code, str) and re.fullmatch(r"[\w.-]{1,60}", code) and code not in said else ""
    return one_line(f"{said} ({named})" if said and named else said or named, MOST_WORDS)


def _place(loc: Any) -> str:
    names = [str(part) for part in loc[:6]] if isinstance(loc, list) else []
    return f"{'.'.join(names)}: " if names else ""


def _sentences(where: Mapping[str, Any], *, levels: int = 3) -> Iterable[str]:
    for name in ("message", "Message", "detail", "details", "msg", "error_description", "error", "title"):
        given = where.get(name)
        if isinstance(given, dict) and levels:
            yield from _sentences(given, levels=levels - 1)
        elif isinstance(given, list):  # FastAPI: where and what, and also what was given, which is the record
            rows = [row for row in given[:3] if isinstance(row, dict)]
            yield "; ".join(f"{_place(row.get('loc'))}{row['msg']}" for row in rows if isinstance(row.get("msg"), str))
        elif isinstance(given, str):
            yield given
