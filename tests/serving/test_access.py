"""Requests that a web page has a browser send: refused without keys, and let in by CORS where its origin is allowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from served import smol
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ontopic.config.settings import ServingSettings
from ontopic.errors import UserError
from ontopic.traffic.store import TrafficStore
from serving.access import Access, cross_origin
from serving.keys import digest
from serving.process import ServedModel

PAGE = "https://bank.example"
BODY = json.dumps({"model": "smol", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})


@pytest.fixture(scope="module")
def open_service(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address and the traffic of a service that asks for no key and allows a page."""
    state = tmp_path_factory.mktemp("open")
    with ServedModel(smol(model_folder, state, no_auth=True, allowed_origins=(PAGE,))) as served:
        yield served.base_url, state / "traffic.db"


def post(url: str, **headers: str) -> httpx.Response:
    given = {"content-type": "text/plain", **headers}
    return httpx.post(f"{url}/chat/completions", content=BODY, headers=given, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},  # a sandboxed frame, a file
        {"origin": "https://localhost.evil.example"},
        {"origin": f"{PAGE}.evil.example"},
        {"origin": "https://["},
        {"host": "evil.example"},
        {"host": "evil.example:3210", "origin": "http://evil.example:3210"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "10.0.0.1:3210"},
    ],
    ids=str,
)
def test_a_foreign_page_plants_no_record(open_service: tuple[str, Path], headers: dict[str, str]) -> None:
    url, traffic = open_service
    response = post(url, **headers)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (403, "invalid_request_error")
    assert error["code"] in ("host_not_allowed", "origin_not_allowed")
    assert "access-control-allow-origin" not in response.headers
    if traffic.is_file():
        with TrafficStore(traffic) as store:
            assert store.count() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:3210"},
        {"host": "[::1]:3210", "origin": "http://[::1]:8080"},
        {"origin": "http://localhost:5173"},
        {"origin": PAGE},
    ],
    ids=str,
)
def test_this_machine_and_the_allowed_page_are_answered(
    open_service: tuple[str, Path], headers: dict[str, str]
) -> None:
    response = post(open_service[0], **headers)
    assert response.status_code == 200
    allowed = PAGE if headers.get("origin") == PAGE else None
    assert response.headers.get("access-control-allow-origin") == allowed


def test_health_is_for_everybody(open_service: tuple[str, Path]) -> None:
    url = open_service[0].removesuffix("/v1") + "/readyz"
    assert httpx.get(url, headers={"host": "load-balancer"}, trust_env=False).status_code == 200


async def answered(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({}, headers={"x-ontopic-record-id": "1"})(scope, receive, send)


def ask(method: str, origins: str, **headers: str) -> httpx.Response:
    """What ``/v1/models`` answers behind a key and the middlewares, as the service stacks them."""
    environment = {"ONTOPIC_KEY_SHA256": digest("right"), "ONTOPIC_ALLOWED_ORIGINS": origins}
    app: Any = cross_origin(Access(answered, environment), environment)

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bank.example") as client:
            return await client.request(method, "/v1/models", headers=headers)

    return asyncio.run(asked())


PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-lang",
}


def test_a_browser_may_ask_without_a_key_whether_it_may_ask() -> None:
    for origins in (PAGE, f"https://other.example,{PAGE}", "*"):
        asked = ask("OPTIONS", origins, origin=PAGE, **PREFLIGHT)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] in (PAGE, "*")
        assert "POST" in asked.headers["access-control-allow-methods"]
        for name in PREFLIGHT["access-control-request-headers"].split(","):
            assert name in asked.headers["access-control-allow-headers"].lower()
    refused = ask("OPTIONS", PAGE, origin="https://evil.example", **PREFLIGHT)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers
    assert (ask("OPTIONS", "", origin=PAGE, **PREFLIGHT)).status_code == 401


def test_an_allowed_page_reads_answers_errors_and_headers() -> None:
    good = ask("GET", PAGE, origin=PAGE, authorization="Bearer right")
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, PAGE)
    assert good.headers["access-control-expose-headers"] == "*"
    assert (ask("GET", PAGE, origin=PAGE)).headers["access-control-allow-origin"] == PAGE  # a 401
    # With keys, a page that is not allowed is a client as any other, which its browser lets read nothing.
    other = ask("GET", PAGE, origin="https://evil.example", authorization="Bearer right")
    assert other.status_code == 200
    assert "access-control-allow-origin" not in other.headers


def test_origins_are_checked(model_folder: Path, tmp_path: Path) -> None:
    assert ServingSettings(allowed_origins=["https://Bank.example:8443", "*"]).allowed_origins[0].endswith(":8443")
    for wrong in ("bank.example", "https://bank.example/", "https://a,https://b", "ftp://x", "", "https://a b"):
        with pytest.raises(ValidationError, match="is not an origin"):
            ServingSettings(allowed_origins=[wrong])
    with pytest.raises(UserError, match="without keys any web page could call"):
        ServedModel(smol(model_folder, tmp_path, no_auth=True, allowed_origins=("*",)))
