"""Traces of requests for OpenTelemetry, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` names who collects them.

A request is a span with these below it: ``guard question``, ``generation`` an answer, with the event ``first token``,
and ``guard answer``. Waiting for a place is a part of ``generation``: until the first token, what waits and what an
engine reads of the prompt cannot be told apart from outside it. No span holds what anybody wrote. Without the variable
nothing is imported, and nothing is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ontopic.models.answer import Batch, Generated, Generation, Piece

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from ontopic.records import GuardDecision

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Tracing:
    """Makes traces where they are asked for.

    Args:
        model_name: that clients ask for.
    """

    def __init__(self, model_name: str, environment: Mapping[str, str] = os.environ) -> None:
        self._model_name = model_name
        self._provider: Any = None
        self._tracer: Tracer | None = None
        if any(environment.get(name) for name in _ENDPOINTS) and environment.get("OTEL_SDK_DISABLED") != "true":
            from serving.otlp import provider

            self._provider = provider(environment)  # its own: BentoML's traces each token
            self._tracer = self._provider.get_tracer("ontopic")

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """The trace of a request that begins now, a part of its client's where the headers name that."""
        if self._tracer is None:
            return Trace(None, None)
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        asked = {"gen_ai.operation.name": "chat", "gen_ai.request.model": self._model_name}
        span = self._tracer.start_span("chat", context=parent, kind=SpanKind.SERVER, attributes=asked)
        return Trace(self._tracer, span)

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()


class Trace:
    """One request's; it does nothing where none is asked for."""

    def __init__(self, tracer: Tracer | None, span: Span | None) -> None:
        self._tracer, self._span = tracer, span

    @contextmanager
    def guard(self, stage: str) -> Iterator[list[GuardDecision]]:
        """A span around what the guard is asked; what it decides is put into the list."""
        decided: list[GuardDecision] = []
        span = self._start(f"guard {stage}")
        try:
            yield decided
        finally:
            if span is not None:
                for each in decided:
                    said = {"mode": each.mode, "stopped": each.stage == stage, "failure": each.failure}
                    scores = {"scope_score": each.scope_score, "answer_score": each.answer_score}
                    span.set_attributes({f"ontopic.guard.{name}": value for name, value in said.items()})
                    known = {f"ontopic.guard.{name}": value for name, value in scores.items() if value is not None}
                    span.set_attributes(known)
                span.end()

    def generating(self, generations: Sequence[Generation], batch: Batch) -> None:
        """Follow answers that are about to be queued: a span each, that ends with it."""
        for each in generations if self._span is not None else ():
            span = self._start("generation")
            if span is not None:
                span.set_attributes({"ontopic.queue.waiting": batch.waiting, "ontopic.queue.running": batch.running})
                each.on_piece = partial(_noted, span, each.on_piece, [])
                each.done.add_done_callback(partial(_generated, span))

    def answered(self, version: str, ids: Sequence[str], *, answers: Sequence[Generated]) -> None:
        """Note what came of the request."""
        if self._span is not None:
            self._span.set_attributes(
                {
                    "gen_ai.response.model": version,
                    "gen_ai.response.finish_reasons": [each.finish_reason for each in answers],
                    "gen_ai.usage.input_tokens": answers[0].prompt_tokens,
                    "gen_ai.usage.output_tokens": sum(each.completion_tokens for each in answers),
                    "ontopic.record_ids": list(ids),
                }
            )

    def end(self, error: BaseException | None = None) -> None:
        """End the request's span, once."""
        if self._span is None:
            return
        if error is not None:
            _failed(self._span, error)
        self._span.end()
        self._span = None

    def _start(self, name: str) -> Span | None:
        if self._tracer is None or self._span is None:
            return None
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start_span(name, context=set_span_in_context(self._span))


def _noted(span: Span, on_piece: Any, seen: list[bool], piece: Piece) -> None:  # noqa: PLR0917 (as a partial)
    if piece.completion_tokens and not seen:
        seen.append(True)
        span.add_event("first token")
    if on_piece is not None:
        on_piece(piece)


def _generated(span: Span, done: Future[Generated]) -> None:
    if done.cancelled():
        span.set_attribute("ontopic.cancelled", value=True)
    elif (error := done.exception()) is not None:
        _failed(span, error)
    else:
        answer = done.result()
        span.set_attribute("gen_ai.usage.output_tokens", answer.completion_tokens)
        span.set_attribute("gen_ai.response.finish_reasons", [answer.finish_reason])
    span.end()


def _failed(span: Span, error: BaseException) -> None:
    """Only the error's kind: its text may hold what a client sent."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", type(error).__name__)
    if (status := getattr(error, "status", None)) is not None:
        span.set_attribute("http.response.status_code", int(status))
    if status is None or status >= 500:
        span.set_status(StatusCode.ERROR)
