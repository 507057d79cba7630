"""What the service counts for Prometheus.

BentoML gives its workers the folder of prometheus_client's multiprocess mode, so the page holds what any process of the
service has counted. BentoML's own request metrics are off: they have the request's path as a label, so that any client
could fill memory and page with what it likes. No label here can hold what a client sends.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as page_of
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ontopic.errors import UserError
from ontopic.state.workspace import is_there
from serving.window_metrics import WindowMetrics

if TYPE_CHECKING:
    from serving.assistant import ServedAssistant

logger = logging.getLogger("bentoml.ontopic")

_WINDOWS_S = 8.0  # that reading the windows may take; Prometheus gives a page up after 10
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

_REQUESTS = Counter("ontopic_requests", "Requests answered, by HTTP status.", ["status"])
_CHATS = Counter("ontopic_chats", "Chat requests that were answered, or failed.", ["outcome"])
_TOKENS = Counter("ontopic_tokens", "Tokens of prompts and answers.", ["kind"])
_WAITING = Gauge(
    "ontopic_queue_length", "Answers that wait for a place in this replica.", multiprocess_mode="mostrecent"
)
_RUNNING = Gauge("ontopic_running", "Answers that this replica is generating.", multiprocess_mode="mostrecent")
_SPOOLED = Gauge("ontopic_spooled_records", "Records that the store has not taken yet.", multiprocess_mode="mostrecent")
_MODEL = Gauge("ontopic_model_info", "1 for the version that answers.", ["version"], multiprocess_mode="mostrecent")
_DEPLOYED = Gauge(
    "ontopic_deployed_timestamp_seconds",
    "When the version began to answer in this service.",
    ["version"],
    multiprocess_mode="mostrecent",
)
_SHARE = Gauge(
    "ontopic_rollout_share",
    "Percentage of conversations that a challenger answers; 0 where it answers unseen, -1 where no more.",
    ["version"],
    multiprocess_mode="mostrecent",
)
_SHADOWED = Counter(
    "ontopic_shadow_answers", "What a challenger was to answer unseen, by what became of it.", ["outcome"]
)
_FIRST_TOKEN = Histogram("ontopic_first_token_seconds", "From a streamed question to its first text.", buckets=_SECONDS)
_LATENCY = Histogram("ontopic_latency_seconds", "From a question to its whole answer.", buckets=_SECONDS)
_ALONE = Counter(
    "ontopic_limits_counted_alone", "What was counted here alone against a key's limits, as the shared state was down."
)
_THUMBS = Counter("ontopic_thumbs", "Thumbs that were given, and whether with a right answer.", ["thumb", "corrected"])
_GUARDED = Counter("ontopic_guard_decisions", "What the guard decided, by stage.", ["stage", "decision"])
_GUARD_LATENCY = Histogram(
    "ontopic_guard_seconds",
    "From the guard's being asked to its decision.",
    ["stage"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


# So that a rate is 0 and not unknown before the first of its kind.
for _labelled, _values in (
    (_CHATS, [("answered",), ("failed",)]),
    (_TOKENS, [("prompt",), ("completion",)]),
    (_SHADOWED, [("stored",), ("dropped",), ("failed",)]),
    (_THUMBS, [(thumb, corrected) for thumb in ("up", "down") for corrected in ("yes", "no")]),
    (_GUARDED, [(stage, said) for stage in ("question", "answer") for said in ("passed", "stopped", "failed")]),
    (_GUARD_LATENCY, [("question",), ("answer",)]),
):
    for _value in _values:
        _labelled.labels(*_value)


def chat_ended(*, failed: bool) -> None:
    """Count a chat request that was answered, or failed."""
    _CHATS.labels("failed" if failed else "answered").inc()


def tokens(prompt: int, completion: int) -> None:
    """Count the tokens of an answered request."""
    _TOKENS.labels("prompt").inc(prompt)
    _TOKENS.labels("completion").inc(completion)


def queue(waiting: int, running: int) -> None:
    """Set how many answers wait for a place, and how many are being generated."""
    _WAITING.set(waiting)
    _RUNNING.set(running)


def deployed(version: str, before: str | None = None) -> None:
    """Say which version answers.

    Args:
        version, before: of the registry, never what a client sends.
    """
    if before is not None:
        _MODEL.labels(before).set(0)
    _MODEL.labels(version).set(1)
    _DEPLOYED.labels(version).set(time.time())


def rolled_out(version: str, share: int | None) -> None:
    """Say which percentage of conversations a challenger answers; ``None`` where it answers no more.

    Args:
        version: of the registry, never what a client sends.
    """
    _SHARE.labels(version).set(-1 if share is None else share)


def shadowed(outcome: str, n: int) -> None:
    """Count answers that nobody sees: ``stored``, ``dropped`` as the service was busy, or ``failed``."""
    _SHADOWED.labels(outcome).inc(n)


def first_token(seconds: float) -> None:
    """Count how long a streamed answer's first text took."""
    _FIRST_TOKEN.observe(seconds)


def latency(seconds: float) -> None:
    """Count how long a whole answer took."""
    _LATENCY.observe(seconds)


def counted_alone() -> None:
    """Count that a key's use was counted in this replica alone."""
    _ALONE.inc()


def thumb(given: str, *, corrected: bool) -> None:
    """Count a thumb: ``up`` or ``down``."""
    _THUMBS.labels(given, "yes" if corrected else "no").inc()


def guarded(stage: str, decision: str, *, seconds: float) -> None:
    """Count a decision of the guard: ``passed``, ``stopped``, or ``failed`` where it could say nothing."""
    _GUARDED.labels(stage, decision).inc()
    _GUARD_LATENCY.labels(stage).observe(seconds)


class CountRequests:
    """A middleware that counts each request by its status; 499 where the client left before an answer began."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def count(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, count)
        except Exception:
            status = status or 500
            raise
        finally:
            _REQUESTS.labels(str(status or 499)).inc()


async def page(request: Request) -> Response:
    """``/metrics``."""
    assistant: ServedAssistant = request.app.state.assistant
    rolling = assistant.rolling
    batches = [assistant.deployment.batch]
    if rolling is not None and rolling.shadow is None:  # in the shadow nobody waits for it
        batches.append(rolling.deployment.batch)
    queue(sum(batch.waiting for batch in batches), sum(batch.running for batch in batches))
    _SPOOLED.set(await anyio.to_thread.run_sync(assistant.spool.waiting) if assistant.spool else 0)
    versions = [assistant.deployment.version, *([rolling.deployment.version] if rolling else [])]
    told = await anyio.to_thread.run_sync(_counted)
    with anyio.move_on_after(_WINDOWS_S):
        told += await anyio.to_thread.run_sync(_of_windows, versions, abandon_on_cancel=True)
    return Response(told, media_type=CONTENT_TYPE_LATEST)


def _counted() -> bytes:
    """What this service counts."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return page_of(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return page_of(registry)


def _of_windows(versions: Sequence[str]) -> bytes:
    """What the windows say; nothing while they can't be read, for what is counted here is told all the same."""
    at = os.environ.get("ONTOPIC_WINDOWS")
    if not at or not is_there(at):
        return b""
    try:
        return page_of(WindowMetrics(at, os.environ["ONTOPIC_MODEL_NAME"], versions=versions))
    except (SQLAlchemyError, UserError) as error:
        logger.warning("what the windows say is not among the metrics (%s)", type(error).__name__)
        return b""
