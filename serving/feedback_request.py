"""A request that says what somebody thought of an answer."""

from __future__ import annotations

from typing import Any

from ontopic.data.labelled import MOST_CHARACTERS
from ontopic.records import Feedback
from serving.chat_request import UNSTORABLE
from serving.errors import RequestError

MOST_ID_CHARACTERS = 64
MOST_COMMENT_CHARACTERS = 2000
MOST_CORRECTION_CHARACTERS = MOST_CHARACTERS
_TEXTS = {"comment": MOST_COMMENT_CHARACTERS, "correction": MOST_CORRECTION_CHARACTERS}


def feedback_request(body: dict[str, Any], by: str) -> Feedback:
    """Check a request's body.

    Args:
        by: the name of the API key that it came with.

    Raises:
        RequestError: a field is missing, unknown or malformed; its ``param`` names it.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name in given:
        if name not in ("record_id", "thumb", *_TEXTS):
            known = f"give record_id, thumb and, where there is one, {' and '.join(_TEXTS)}"
            raise RequestError(f"unknown field {name[:80]!a}; {known}", name[:80], code="unknown_field")
    record_id = _text(given, "record_id", longest=MOST_ID_CHARACTERS)
    if not record_id:
        raise RequestError("record_id must be the x-ontopic-record-id of an answer", "record_id")
    thumb = given.get("thumb")
    if thumb not in ("up", "down"):
        raise RequestError('thumb must be "up" or "down"', "thumb")
    comment, correction = (_text(given, name, longest=longest) for name, longest in _TEXTS.items())
    return Feedback(record_id=record_id, thumb=thumb, comment=comment, correction=correction, by=by)


def _text(given: dict[str, Any], name: str, *, longest: int) -> str:
    text = given.get(name, "")
    if not isinstance(text, str) or len(text) > longest:
        raise RequestError(f"{name} must be a text of at most {longest} characters", name)
    if UNSTORABLE.search(text):
        raise RequestError(f"{name} must hold neither NUL nor a lone surrogate", name)
    return text
