"""OpenTelemetry: the spans of a request reach a collector over real HTTP, and hold nothing that anybody wrote."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT, Reply, answering, running_server
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from served import openai_client

from ontopic.config.settings import EndpointSettings
from ontopic.errors import UserError
from serving.process import ServedModel, Serving
from serving.tracing import Tracing

MODEL, VERSION, QUESTION, ANSWER = "ontopic-gardening", "gpt-4o", "How do I prune my roses?", "In the spring."
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes what is exported.

    Attributes:
        got: the bodies; headers: those of the last one.
    """

    def __init__(self) -> None:
        self.url, self.got, self.headers = "", list[bytes](), dict[str, str]()
        self.lock = threading.Lock()

    def spans(self) -> list[Any]:
        with self.lock:
            messages = [ExportTraceServiceRequest.FromString(body) for body in self.got]
        return [span for m in messages for of in m.resource_spans for scope in of.scope_spans for span in scope.spans]

    def wait(self, n: int) -> list[Any]:
        until = time.monotonic() + 60
        while len(self.spans()) < n and time.monotonic() < until:
            time.sleep(0.1)
        return self.spans()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with found.lock:
                found.got.append(body)
                found.headers = {**dict(self.headers), "path": self.path}
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with answering(Handler) as url:
        found.url = url
        yield found


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value for each in span.attributes}


def test_a_request_is_a_trace(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a%20b")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with running_server() as upstream:
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        upstream.reply = lambda _: Reply(text=ANSWER, parts={"usage": usage})
        values = {"model_version": VERSION, "model_name": MODEL, "traffic": tmp_path / "t.db", "state": tmp_path}
        behind = EndpointSettings(model=VERSION, base_url=upstream.url, max_retries=0)
        asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
        with (
            ServedModel(Serving(upstream=behind, **values)) as served,
            openai_client(served.base_url, served.api_key) as client,
        ):
            client.chat.completions.create(**asked, extra_headers={"traceparent": PARENT})
            list(client.chat.completions.create(**asked, stream=True))
            upstream.reply = lambda _: Reply(status=500, body=ANSWER.encode())
            with pytest.raises(Exception, match="502"):
                client.chat.completions.create(**asked)
            spans = collector.wait(6)
    chats = [span for span in spans if span.name == "chat"]
    answers = [span for span in spans if span.name == "generation"]
    assert (len(spans), len(chats), len(answers)) == (6, 3, 3)
    assert chats[0].trace_id.hex() == PARENT.split("-")[1] and chats[0].parent_span_id.hex() == PARENT.split("-")[2]
    assert {span.parent_span_id for span in answers} == {span.span_id for span in chats}
    assert all(chat.start_time_unix_nano < chat.end_time_unix_nano for chat in spans)
    assert [attributes(chat).get("gen_ai.usage.output_tokens") is not None for chat in chats] == [True, True, False]
    assert attributes(chats[0])["gen_ai.usage.input_tokens"].int_value == 7
    assert attributes(chats[2])["http.response.status_code"].int_value == 502 and chats[2].status.code == 2
    assert [event.name for event in answers[1].events] == ["first token"]
    assert (collector.headers["path"], collector.headers["x-team"]) == ("/v1/traces", "a b")
    assert not any(text.encode() in body for body in collector.got for text in (QUESTION, ANSWER))


def test_an_endpoint_that_is_no_address_is_told() -> None:
    for endpoint in ("collector:4317", "http://", "file:///etc"):
        with pytest.raises(UserError, match="OTEL_EXPORTER_OTLP_ENDPOINT is not the address of a server"):
            Tracing("m", {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})


def test_nothing_is_imported_where_nobody_collects() -> None:
    code = (
        "import sys; from serving.tracing import Tracing; t = Tracing('m', {}).begin({}); t.end();"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
