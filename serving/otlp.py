"""OTLP over HTTP: spans as the protocol's messages, posted to a collector.

OpenTelemetry's own exporter cannot be installed beside the protocol's messages that MLflow needs and the SDK that
BentoML needs, which differ in their version; this one is made of both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from ontopic.config.network import http_options, is_server_address
from ontopic.errors import UserError

logger = logging.getLogger("bentoml.ontopic")

_TIMEOUT_S = 10.0


def provider(environment: Mapping[str, str]) -> TracerProvider:
    """What collects spans on a thread of its own, some seconds' at a time, and drops them while nobody takes them.

    Args:
        environment: the variables of OpenTelemetry's specification: endpoint, headers, service name, resource.

    Raises:
        UserError: the endpoint is no address of a server, or the way there is wrong.
    """
    given = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    url = given or f"{environment['OTEL_EXPORTER_OTLP_ENDPOINT'].rstrip('/')}/v1/traces"
    if not is_server_address(url):
        raise UserError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a server; give one such as http://collector:4318 (OTLP "
            "over HTTP), or unset it"
        )
    headers = environment.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environment.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    resource = Resource.create({} if environment.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "ontopic"})
    made = TracerProvider(resource=resource)
    made.add_span_processor(BatchSpanProcessor(OTLPExporter(url, _headers(headers))))
    logger.info("traces go to the collector that OpenTelemetry's variables name")  # its URL may hold a secret
    return made


class OTLPExporter(SpanExporter):
    """Posts spans to a URL."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        kind = {"content-type": "application/x-protobuf"}
        self._url, self._client = (
            url,
            httpx.Client(headers={**headers, **kind}, timeout=_TIMEOUT_S, **http_options(url)),
        )
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Post them; those that cannot be are lost, and the log says so once."""
        try:
            response = self._client.post(self._url, content=message_of(spans).SerializeToString())
            failed = "" if response.is_success else f"status {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failed = type(error).__name__
        if failed and not self._failing:
            logger.warning("traces could not be sent (%s); they are lost until they can be again", failed)
        self._failing = bool(failed)
        return SpanExportResult.FAILURE if failed else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the connections."""
        self._client.close()


def message_of(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Spans of one resource as the protocol has them."""
    message = ExportTraceServiceRequest()
    of = message.resource_spans.add()
    of.resource.attributes.extend(_attributes(spans[0].resource.attributes if spans else {}))
    scope = of.scope_spans.add()
    scope.scope.name = "ontopic"
    scope.spans.extend(_span(each) for each in spans)
    return message


def _span(span: ReadableSpan) -> trace_pb2.Span:
    context = span.context
    return trace_pb2.Span(
        trace_id=bytes.fromhex(format_trace_id(context.trace_id)),
        span_id=bytes.fromhex(format_span_id(context.span_id)),
        parent_span_id=bytes.fromhex(format_span_id(span.parent.span_id)) if span.parent else b"",
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type]  # the protocol has UNSPECIFIED before them
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_attributes(span.attributes or {}),
        events=[trace_pb2.Span.Event(name=each.name, time_unix_nano=each.timestamp) for each in span.events],
        status=trace_pb2.Status(code=span.status.status_code.value),  # type: ignore[arg-type]
    )


def _attributes(given: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in given.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))


def _headers(given: str) -> dict[str, str]:
    """``key=value`` with commas between, in the coding of URLs, as the specification has them."""
    pairs = [pair.partition("=") for pair in given.split(",") if "=" in pair]
    return {unquote(key).strip(): unquote(value).strip() for key, _, value in pairs}
