"""API keys that replicas share: how soon each knows of a change, and what it does without the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from relay import Relay, relayed
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving import access, shared_state
from serving.access import Access
from serving.keys import KeyStore


@pytest.fixture
def to_database(state_database: str) -> Iterator[tuple[Relay, str]]:
    with relayed(state_database) as way:
        yield way


def replica(url: str) -> TestClient:
    """What stands before a service with these keys."""
    app = Starlette(routes=[Route("/v1/models", lambda _: PlainTextResponse("well"))])
    return TestClient(Access(app, {"ONTOPIC_KEYS": url}))


def asked(client: TestClient, key: str) -> int:
    return client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code


def test_a_key_is_known_to_all_replicas_and_revoked_at_all_within_a_second_or_so(state_database: str) -> None:
    store = KeyStore(state_database)
    with replica(state_database) as one, replica(state_database) as other:
        assert {asked(each, "ot-none") for each in (one, other)} == {401}  # both have read what there is
        key = store.make("website")
        for status in (200, 401):
            began = time.monotonic()
            while {asked(each, key) for each in (one, other)} != {status}:
                assert time.monotonic() - began < 3
                time.sleep(0.05)
            if status == 200:
                store.revoke("website")


def test_keys_that_were_read_are_accepted_for_a_while_without_the_database(
    to_database: tuple[Relay, str], state_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, url = to_database
    key = KeyStore(state_database).make("website", requests_per_minute=100)
    monkeypatch.setattr(access, "_FRESH_S", 0)
    with ExitStack() as clients:
        known = clients.enter_context(replica(url))
        assert asked(known, key) == 200
        unread = clients.enter_context(replica(url))
        relay.cut()
        assert [asked(known, key) for _ in range(3)] == [200] * 3
        assert asked(known, "ot-other") == 401
        assert asked(unread, key) == 503  # what it never read it cannot accept
        monkeypatch.setattr(access, "_LONGEST_S", 0)
        refused = known.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        relay.mend()
        monkeypatch.setattr(shared_state, "_LEFT_ALONE_S", 0)
        assert {asked(each, key) for each in (known, unread)} == {200}


def test_who_asks_while_the_database_says_nothing_waits_once(
    to_database: tuple[Relay, str], state_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, url = to_database
    key = KeyStore(state_database).make("website")
    monkeypatch.setattr(access, "_FRESH_S", 0)
    with replica(url) as client:
        assert asked(client, key) == 200
        relay.swallows = True
        monkeypatch.setattr(shared_state, "_PATIENCE_S", 0.5)
        began, statuses = time.monotonic(), list[int]()
        threads = [threading.Thread(target=lambda: statuses.append(asked(client, key))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 20
        assert time.monotonic() - began < 4  # not 20 times half a second
