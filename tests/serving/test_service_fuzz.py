"""Hostile and malformed requests: each gets a 4xx, and the service still answers."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from served import smol

from ontopic.config.network import reach_this_machine_directly
from serving import openapi
from serving.process import ServedModel


@dataclass(frozen=True)
class Served:
    url: str
    key: str
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("fuzzed")
    with ServedModel(smol(model_folder, state, max_new_tokens=4)) as model:
        yield Served(model.base_url.removesuffix("/v1"), model.api_key, model.log)


@pytest.fixture(scope="module")
def documented(served: Served) -> Any:
    reach_this_machine_directly()  # Schemathesis goes by the environment's proxy
    url = f"{served.url}/openapi.json"
    return schemathesis.openapi.from_url(url, config=SchemathesisConfig(), headers=served.headers)


CHAT = ("/v1/chat/completions", "post")
OPERATIONS = [(path, method) for path, item in openapi.document("smol")["paths"].items() for method in item]
CASES = [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS] + [(*CHAT, GenerationMode.NEGATIVE)]


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_the_document_is_true_of_the_service(
    documented: Any, served: Served, path: str, method: str, mode: GenerationMode
) -> None:
    @settings(max_examples=30, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=documented[path][method].as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        # The one check can't take away the key that it is given here (test_keys.py does), and the other would need the
        # document to say that stream_options goes with stream alone.
        case.call_and_validate(headers=served.headers, excluded_checks=[ignored_auth, positive_data_acceptance])

    check()


QUESTION = [{"role": "user", "content": "How do I open a savings account?"}]
ALIEN = [
    *(True, 0, -1, 1, 10**400, -(10**400), 1e-320, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "\0"),
    *([], [[]], [None], ["\ud800"], {}, {"\ud800": 1}, {"type": "text"}, [{"role": "user", "content": "x"}]),
    *(json.loads("[" * 900 + "]" * 900), "x" * 100_000),
]
FIELDS = [*openapi.document("smol")["components"]["schemas"]["ChatRequest"]["properties"], "\ud800", "x" * 10_000, ""]


def send(served: Served, body: bytes, **headers: str) -> httpx.Response:
    given = {"content-type": "application/json", **served.headers, **headers}
    return httpx.post(served.url + CHAT[0], content=body, headers=given, timeout=60, trust_env=False)


def answers(served: Served) -> bool:
    """Whether the service answers a question."""
    response = send(served, json.dumps({"model": "smol", "messages": QUESTION}).encode())
    return bool(response.json()["choices"][0]["message"]["content"])


def is_refused(response: httpx.Response) -> bool:
    """Whether a response is a client's error in OpenAI's shape."""
    error = response.json()["error"]
    return 400 <= response.status_code < 500 and len(error["message"]) <= 1000 and error["type"] != "server_error"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: ascii(field)[:30])
def test_no_value_of_a_field_makes_it_fail(served: Served, field: str) -> None:
    for value in ALIEN:
        body = {"model": "smol", "messages": QUESTION, "max_tokens": 1, "logprobs": field == "top_logprobs"}
        response = send(served, json.dumps(body | {field: value}).encode())
        assert response.status_code == 200 or is_refused(response), (field, ascii(value)[:80], response.text[:500])
    assert answers(served)


@pytest.mark.parametrize("temperature", [5e-324, 1e-320, 1e-40, 1e-8])
def test_a_temperature_close_to_0_is_0(served: Served, temperature: float) -> None:
    said = []
    for chosen in (0, temperature):
        for top_p in (1, 0.5):
            body = {"model": "smol", "messages": QUESTION, "temperature": chosen, "top_p": top_p}
            said.append(send(served, json.dumps(body).encode()).json()["choices"][0]["message"]["content"])
    assert len(set(said)) == 1
    assert said[0]


MESSAGE = b'{"model": "smol", "messages": [{"role": "user", "content": "%s"}]}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (MESSAGE % (b"bank " * 200_000), {}),
        (MESSAGE % (b"x" * (1 << 20)), {}),
        (MESSAGE % b"\xff\xfe", {}),
        (MESSAGE % b"\xed\xa0\x80", {}),
        (MESSAGE % b"a\\ud800b", {}),
        (MESSAGE % b"a\\u0000b", {}),
        (MESSAGE % b"a\0b", {}),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}),
        (b'{"a":' * 100_000, {}),
        (b'{"temperature": ' + b"9" * 5000 + b"}", {}),
        (MESSAGE.replace(b"{", b'{"n": 1, "n": 99, ', 1) % b"x", {}),
        (gzip.compress(MESSAGE % b"x", mtime=0), {"content-encoding": "gzip"}),
        (b"--x\r\n\r\nhi\r\n--x--", {"content-type": "multipart/form-data; boundary=x"}),
        (b"model=smol", {"content-type": "application/x-www-form-urlencoded"}),
        (b"\0" * 1000, {"content-type": "x"}),
        (b"", {"content-length": "0"}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_not_a_request_is_refused(served: Served, body: bytes, headers: dict[str, str]) -> None:
    assert is_refused(send(served, body, **headers))
    assert answers(served)


@pytest.mark.parametrize("path", ["/docs.json", "/schema.json", "/static_content/x", "/v1", "/v1/../x", "/v1/%00"])
def test_there_is_nothing_but_what_is_documented(served: Served, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        response = httpx.request(method, served.url + path, headers=served.headers, trust_env=False)
        assert response.status_code == 404, (method, path)
        assert is_refused(response)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_another_method_is_not_allowed(served: Served, path: str, method: str) -> None:
    for other in {"get", "post", "put", "delete", "options", "patch"} - {method}:
        response = httpx.request(other, served.url + path, headers=served.headers, trust_env=False)
        assert response.status_code == 405, (other, path)
        assert method.upper() in response.headers["allow"]


def test_headers_without_end_do_not_stop_it(served: Served) -> None:
    for headers in (b"x: y\r\n" * 20_000, b"x: " + b"y" * (1 << 20) + b"\r\n", b"authorization: Bearer x\r\n" * 100):
        with connected(served) as client, contextlib.suppress(ConnectionError):
            client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n")
            assert client.recv(100).split()[1] in (b"400", b"401", b"431")
    assert answers(served)


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"\0\0\0", b"GET", b"GET / HTTP/9.9", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0"),
        *(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1", b"POST / HTTP/1.1\r\ncontent-length: 9e9"),
    ],
)
def test_what_is_not_http_does_not_stop_it(served: Served, line: bytes) -> None:
    with connected(served) as client:
        client.sendall(line + b"\r\n\r\n")
    assert answers(served)


@pytest.mark.slow
def test_bodies_that_never_end_do_not_keep_others_waiting(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n" % served.key.encode()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(served)) for _ in range(50)]
        for client in slow:
            client.sendall(head + b'content-length: 100\r\n\r\n{"model":')
        endless = stack.enter_context(connected(served))
        endless.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(64):
            endless.sendall(b"10000\r\n" + b"x" * (1 << 16) + b"\r\n")  # 4 MiB
        assert answers(served)
        # After 20 s each is told that it was too slow, and its connection is closed.
        for client in (*slow, endless):
            said = b"".join(iter(lambda client=client: client.recv(1 << 16), b""))
            assert said.split()[1] == b"408"
            assert b"connection: close" in said.lower()


def test_a_client_that_leaves_while_it_sends_is_no_failure(served: Served) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n" % served.key.encode()
    for _ in range(20):
        with connected(served) as client:
            client.sendall(head + b'content-length: 100\r\n\r\n{"model":')
    assert answers(served)


def test_nothing_of_it_was_a_server_error(served: Served) -> None:
    page = httpx.get(f"{served.url}/metrics", headers=served.headers, trust_env=False).text
    statuses = set(re.findall(r'ontopic_requests_total{status="(\d+)"}', page))
    assert "400" in statuses
    assert not [status for status in statuses if status >= "500"]
    assert "Traceback" not in served.log.read_text(errors="replace")


def connected(served: Served) -> socket.socket:
    url = httpx.URL(served.url)
    return socket.create_connection((url.host, url.port or 80), timeout=60)
