"""What a key may use in a minute: in one process, and of all replicas that share a database."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY
from relay import Relay, relayed

from ontopic.errors import UserError
from serving import shared_state, shared_use
from serving.errors import RequestError
from serving.keys import Key, digest
from serving.rate_limits import RateLimits
from serving.shared_state import SharedState
from serving.shared_use import SharedUse

NOW = 1_800_000_000.0  # a minute begins


def key_of(requests: int | None = None, tokens: int | None = None) -> Key:
    sha256 = digest(secrets.token_hex())
    return Key(
        sha256=sha256,
        name="website",
        prefix="ot-",
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        made_at=datetime.now(UTC),
        expires_at=None,
        revoked_at=None,
    )


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is that runs the tests, its database is not down."""
    monkeypatch.setattr(shared_state, "_PATIENCE_S", 30)


@pytest.fixture(params=["alone", "shared"])
def limits(request: pytest.FixtureRequest) -> RateLimits:
    """In one process, and on PostgreSQL."""
    if request.param == "alone":
        return RateLimits()
    return RateLimits(SharedState(request.getfixturevalue("database_of_file")))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time for both: this process's and the database's."""

    def set_to(now: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now)
        monkeypatch.setattr(shared_use, "_NOW", f"{now!r}::numeric")

    return set_to


def refused(taking: Callable[[], Awaitable[None]]) -> RequestError | None:
    try:
        asyncio.run(taking())  # type: ignore[arg-type]
    except RequestError as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_what_is_over_a_limit_waits_until_there_is_room(
    limits: RateLimits, clock: Callable[[float], None], kind: str
) -> None:
    key = key_of(requests=10) if kind == "requests" else key_of(tokens=1000)
    take = (lambda: limits.of(key).take_request()) if kind == "requests" else (lambda: limits.of(key).take_tokens(100))
    for i in range(10):
        clock(NOW + 45 + i / 2)
        assert refused(take) is None
    for _ in range(3):
        error = refused(take)
        assert error is not None
        assert (error.status, error.code) == (429, "rate_limit_exceeded")
        assert f"0 {kind} a minute" in str(error)
    assert error is not None
    assert error.retry_after_s is not None
    assert 1 <= error.retry_after_s <= 61
    clock(NOW + 45 + 4.5 + error.retry_after_s - 1.01)
    assert refused(take) is not None
    clock(NOW + 45 + 4.5 + error.retry_after_s)
    assert refused(take) is None


def test_no_minute_has_more_requests_than_the_limit(limits: RateLimits, clock: Callable[[float], None]) -> None:
    key, asked = key_of(requests=5), [NOW + i * 1.7 + (i * 7 % 11) / 10 for i in range(150)]

    async def ask() -> list[float]:
        passed = []
        for now in asked:
            clock(now)
            with contextlib.suppress(RequestError):
                await limits.of(key).take_request()
                passed.append(now)
        return passed

    passed = asyncio.run(ask())
    assert max(sum(start <= each < start + 60 for each in passed) for start in passed) == 5
    assert len(passed) >= 20  # of four minutes, and a bit


def test_the_headers_say_what_is_left_of_what_was_counted(limits: RateLimits, clock: Callable[[float], None]) -> None:
    clock(NOW + 0.5)
    key = key_of(requests=3, tokens=1000)
    for left in (2, 1):
        allowance = limits.of(key)
        assert allowance.headers() == {}
        assert refused(allowance.take_request) is None
        assert set(allowance.headers()) == {f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset")}
        assert allowance.headers()["x-ratelimit-remaining-requests"] == str(left)
    assert refused(lambda: allowance.take_tokens(700)) is None
    assert refused(lambda: allowance.take_tokens(301)) is not None
    assert allowance.headers()["x-ratelimit-limit-tokens"] == "1000"
    assert allowance.headers()["x-ratelimit-remaining-tokens"] == "300"
    assert 0 < float(allowance.headers()["x-ratelimit-reset-tokens"].removesuffix("s")) <= 120
    error = refused(lambda: allowance.take_tokens(1001))
    assert error is not None
    assert error.retry_after_s is None
    assert "shorten the messages" in str(error)
    unlimited = limits.of(key_of())
    assert refused(unlimited.take_request) is refused(lambda: unlimited.take_tokens(10**9)) is None
    assert unlimited.headers() == {}


def test_two_replicas_under_load_let_pass_exactly_the_limit(database_of_file: str) -> None:
    key, outcomes = key_of(requests=50, tokens=3000), Counter[str]()

    def replica() -> None:
        limits = RateLimits(SharedState(database_of_file))

        async def ask() -> str:
            allowance = limits.of(key)
            try:
                await allowance.take_request()
                await allowance.take_tokens(100)
            except RequestError as error:
                return "requests" if "50 requests" in str(error) else "tokens"
            return "passed"

        async def all_at_once() -> list[str]:
            return await asyncio.gather(*(ask() for _ in range(60)))

        outcomes.update(asyncio.run(all_at_once()))

    threads = [threading.Thread(target=replica) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"passed": 30, "tokens": 20, "requests": 70}


def test_replicas_that_count_at_the_same_moment_count_one_after_the_other(database_of_file: str) -> None:
    import psycopg

    key, shared = key_of(requests=3), [SharedUse(database_of_file) for _ in range(2)]
    passed = Counter[bool]()

    def take(use: SharedUse) -> None:
        passed[use.take("requests", key.sha256, n=1, most=3).wait_s is None] += 1

    take(shared[0])
    threads = [threading.Thread(target=take, args=[shared[i % 2]]) for i in range(8)]
    with psycopg.connect(database_of_file) as connection:
        connection.execute("SELECT * FROM rate_use WHERE key = %s FOR UPDATE", [key.sha256])
        for thread in threads:
            thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
        with psycopg.connect(database_of_file, autocommit=True) as other:
            deadline = time.monotonic() + 30
            while other.execute(waiting, [connection.info.dbname]).fetchone() != (8,):  # all have begun to look
                assert time.monotonic() < deadline
                time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert passed == {True: 3, False: 6}


@pytest.mark.parametrize("fault", ["cut", "swallows"])
def test_a_database_that_is_down_is_waited_for_once_and_each_replica_counts_by_itself(
    database_of_file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    caplog.set_level(logging.INFO, "bentoml.ontopic")
    key, alone_before = key_of(requests=5), counted_alone()

    async def take(limits: RateLimits, n: int) -> int:
        """How many of that many requests pass."""
        passed = 0
        for _ in range(n):
            with contextlib.suppress(RequestError):
                await limits.of(key).take_request()
                passed += 1
        return passed

    async def day(relay: Relay, url: str) -> None:
        limits = RateLimits(SharedState(url))
        assert await take(limits, 2) == 2
        if fault == "cut":
            relay.cut()
        else:
            relay.swallows = True
            monkeypatch.setattr(shared_state, "_PATIENCE_S", 0.5)
        began = time.monotonic()
        assert await take(limits, 20) == 3  # it knows of the two that it let pass before
        assert time.monotonic() - began < 0.5 + 4  # and not 20 times as long
        assert counted_alone() - alone_before == 20
        relay.cut()
        relay.mend()
        assert await take(limits, 1) == 0  # the database is left alone for a while
        monkeypatch.setattr(shared_state, "_LEFT_ALONE_S", 0)
        monkeypatch.setattr(shared_state, "_PATIENCE_S", 30)
        assert await take(limits, 9) == 0  # it let 5 pass in this minute, whoever counted them
        other = RateLimits(SharedState(url))
        assert await take(other, 9) == 0  # and what it was refused in the end was counted all the same
        assert counted_alone() - alone_before == 21

    with relayed(database_of_file) as (relay, url):
        asyncio.run(day(relay, url))
    said = [record.message for record in caplog.records if record.name == "bentoml.ontopic"]
    assert len(said) == 2, said
    assert "goes on by itself" in said[0]
    assert "answers again" in said[1]
    assert "postgres" not in said[0]


def counted_alone() -> float:
    return REGISTRY.get_sample_value("ontopic_limits_counted_alone_total") or 0.0


def test_a_database_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(UserError, match="shared state") as raised:
        RateLimits(SharedState("postgresql://ann:secret@127.0.0.1:9/none"))
    assert "secret" not in str(raised.value)
