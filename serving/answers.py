"""``/v1/answers/ID``: what guard, judge and a challenger in the shadow made of an answer, for whoever asked for it."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse

from ontopic.monitoring.windows import WindowStore
from ontopic.records import GuardDecision, Record, Verdict
from ontopic.state.workspace import is_there
from serving.assistant import ServedAssistant
from serving.chat_request import UNSTORABLE
from serving.errors import RequestError
from serving.feedback_request import MOST_ID_CHARACTERS

_OF_GUARD = ("mode", "stage", "scope_score", "answer_score", "failure")
_OF_VERDICT = ("outcome", "score", "explanation", "cause", "judge_id")


async def answer(request: Request) -> JSONResponse:
    """What is known by now; nothing is judged for it: that is done when the answer's window closes."""
    assistant: ServedAssistant = request.app.state.assistant
    record_id, key = request.path_params["record_id"], request.state.caller.name
    found = None
    if len(record_id) <= MOST_ID_CHARACTERS and not UNSTORABLE.search(record_id):
        found = await anyio.to_thread.run_sync(partial(_found, assistant, record_id, key=key))
    if found is None:
        message = "this key has asked for no answer with a record of this id"
        raise RequestError(message, "record_id", status=404, code="record_not_found")
    return JSONResponse(found)


def _found(assistant: ServedAssistant, record_id: str, *, key: str) -> dict[str, Any] | None:
    records = assistant.traffic.records(ids=[record_id])
    if not records or (records[0].key, records[0].registered_model) != (key, assistant.model_name):
        return None
    rolling = assistant.rolling
    return {
        "object": "answer",
        "record_id": record_id,
        "model_version": records[0].model_version,
        "guard": _part(records[0].guard, _OF_GUARD),
        "verdict": _part(_verdict(records[0]), _OF_VERDICT),
        "beside": [
            each.model_dump(include={"model_version", "answer"}) for each in assistant.traffic.shadow([record_id])
        ],
        "challenger": rolling.deployment.version if rolling and rolling.shadow else None,
    }


def _verdict(record: Record) -> Verdict | None:
    """By the judge that gates; ``None`` while the record's window is open."""
    at = os.environ.get("ONTOPIC_WINDOWS")
    if not at or not is_there(at):
        return None
    with WindowStore(at, record.registered_model) as windows:
        for window in windows.holding([record.id]):
            if window.result is not None:
                return windows.verdicts([record.id], window.result.judge_id).get(record.id)
    return None


def _part(of: GuardDecision | Verdict | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    return None if of is None else of.model_dump(include=set(names))
