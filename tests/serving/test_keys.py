"""API keys: how they are kept, the commands, and what a service with keys answers over HTTP."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from loopback import ROOT
from served import openai_client, smol
from typer.testing import CliRunner, Result

from ontopic.errors import UserError
from serving.commands import keys
from serving.keys import KeyStore, digest
from serving.process import ServedModel
from serving.use import LocalUse

QUESTION = [{"role": "user", "content": "How do I open a savings account?"}]


@pytest.fixture
def command(tmp_path: Path, either_place: str) -> Callable[..., Result]:
    """``keys`` on a state folder of its own."""

    def called(*arguments: str) -> Result:
        return CliRunner().invoke(keys, [*arguments, "--state", str(tmp_path / "state")])

    return called


def test_keys_are_made_listed_and_revoked(command: Callable[..., Result]) -> None:
    made = command("make", "website", "--requests-per-minute", "60", "--tokens-per-minute", "9000", "--expires", "90d")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert re.fullmatch(r"ot-[A-Za-z0-9_-]{43}", key)
    assert "shown this once" in made.stderr
    assert isinstance(command("make", "website").exception, UserError)
    said = command("list").output
    for expected in ("website", key[:8], "60", "9,000", f"{datetime.now(UTC) + timedelta(90):%Y-%m-%d}", "active"):
        assert expected in said
    assert key not in said
    assert "is revoked" in command("revoke", "website").output
    assert isinstance(command("revoke", "website").exception, UserError)
    assert command("make", "website").stdout.strip() != key
    said = command("list").output
    assert ("active" in said, "revoked" in said) == (True, True)


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 65, "x" * 1_000_000, "-x", "é", "a b", "..\0"])
def test_what_cannot_be_a_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a key") as raised:
        KeyStore(tmp_path / "keys.db").make(name)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("expires", ["0d", "soon", "-1d", "9" * 400 + "d"])
def test_a_time_that_is_malformed_or_over_is_refused(command: Callable[..., Result], expires: str) -> None:
    assert isinstance(command("make", "a", f"--expires={expires}").exception, UserError)
    assert isinstance(command("list").exception, UserError)


def test_a_key_is_not_at_rest(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.db")
    key = store.make("a")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"keys" in kept
    assert key.encode() not in kept
    assert key[8:].encode() not in kept
    assert stat.S_IMODE((tmp_path / "keys.db").stat().st_mode) == 0o600
    assert [known.sha256 for known in store.all()] == [digest(key)]


def test_a_file_that_holds_no_keys_is_told(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match="cannot be read"):
        KeyStore(tmp_path / "keys.db")


def test_a_temporary_key_is_gone_at_the_end_and_leaves_the_names_of_others(tables_at: Path | str) -> None:
    store = KeyStore(tables_at)
    mine = store.make("ask")
    with (
        pytest.raises(ZeroDivisionError),
        store.temporary("ask", lifetime=timedelta(minutes=5)) as second,
        store.temporary("ask", lifetime=timedelta(minutes=5)) as third,
    ):
        keys = {key.sha256: key for key in store.all()}
        assert [keys[digest(key)].name for key in (mine, second, third)] == ["ask", "ask-2", "ask-3"]
        left = keys[digest(second)].expires_at
        assert left is not None
        assert timedelta(minutes=4) < left - datetime.now(UTC) <= timedelta(minutes=5)
        raise ZeroDivisionError
    assert [(key.name, key.sha256) for key in store.all()] == [("ask", digest(mine))]
    with pytest.raises(UserError, match="cannot name a key"), store.temporary("a b", lifetime=timedelta(1)):
        pass


def test_a_file_that_an_older_release_made_is_read_and_a_replaced_file_is_seen(tmp_path: Path) -> None:
    old = """
        CREATE TABLE keys (
            sha256 VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, prefix VARCHAR(16) NOT NULL,
            requests_per_minute INTEGER, tokens_per_minute INTEGER, made_at DATETIME NOT NULL, expires_at DATETIME,
            revoked_at DATETIME, PRIMARY KEY (sha256));
        CREATE UNIQUE INDEX one_a_name ON keys (name) WHERE revoked_at IS NULL;
        INSERT INTO keys VALUES ('ab', 'website', 'ot-12345', 60, NULL, '2026-03-01 12:00:00.000000', NULL, NULL);
    """
    for name in ("keys.db", "other.db"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as database:
            database.executescript(old)
    store = KeyStore(tmp_path / "keys.db")
    (key,) = store.all()
    assert (key.name, key.made_at) == ("website", datetime(2026, 3, 1, 12, tzinfo=UTC))
    with pytest.raises(UserError, match="already"):
        store.make("website")
    store.revoke("website")
    assert store.all()[0].revoked_at is not None
    (tmp_path / "other.db").replace(tmp_path / "keys.db")
    assert store.all() == [key]


def test_the_commands_on_keys_import_no_model_and_no_registry(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from serving.commands import keys\n"
        "for arguments in (['make', 'a'], ['list'], ['revoke', 'a']):\n"
        f"    result = CliRunner().invoke(keys, [*arguments, '--state', {str(tmp_path)!r}])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    imported = {name.partition(".")[0] for name in run.stdout.split()}
    heavy = {"torch", "transformers", "mlflow", "scipy", "sklearn", "pandas", "evidently", "zenml", "bentoml"}
    assert "sqlalchemy" in imported
    assert imported & heavy == set()


def test_processes_make_keys_at_once(tables_at: Path | str) -> None:
    threads = [threading.Thread(target=lambda i=i: KeyStore(tables_at).make(f"k{i}")) for i in range(20)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in KeyStore(tables_at).all()} == {f"k{i}" for i in range(20)}


def test_tokens_of_the_last_minute_weigh_less_the_longer_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    use, now = LocalUse(), 1_800_000_000.0 + 45  # 45 s into a minute
    monkeypatch.setattr(time, "time", lambda: now)
    for n in (700, 300):
        taken = use.take("tokens", "a", n=n, most=1000)
        assert taken.wait_s is None
    assert (taken.left, taken.reset_s) == (0, pytest.approx(75))
    for n, wait_s in ((1, 15.06), (100, 21), (1000, 75)):
        now = 1_800_000_000.0 + 45
        assert use.take("tokens", "a", n=n, most=1000).wait_s == pytest.approx(wait_s)
        now += wait_s - 1
        assert use.take("tokens", "a", n=n, most=1000).wait_s is not None
    now += 1
    assert use.take("tokens", "a", n=1000, most=1000).wait_s is None


@dataclass(frozen=True)
class Keyed:
    """A service with keys."""

    url: str
    store: KeyStore
    traffic: Path
    key: str

    def get(self, path: str, key: str | bytes = "", **more: Any) -> httpx.Response:
        headers = {b"authorization": b"Bearer " + (key if isinstance(key, bytes) else key.encode())} if key else {}
        return httpx.get(self.url.removesuffix("/v1") + path, **({"headers": headers} | more), trust_env=False)

    def client(self, key: str) -> openai.OpenAI:
        return openai_client(self.url, key)


@pytest.fixture(scope="module")
def keyed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    state = tmp_path_factory.mktemp("keyed")
    store = KeyStore(state / "keys.db")
    served = ServedModel(smol(model_folder, state, max_new_tokens=8, keys=state / "keys.db"))
    with served:
        # Made while it runs: each test waits for its own key to be known.
        key = store.make("shared")
        found = Keyed(served.base_url, store, state / "traffic.db", key)
        until_known(found, key)
        yield found


def until_known(keyed: Keyed, key: str, status: int = 200) -> None:
    deadline = time.monotonic() + 2
    while keyed.get("/metrics", key).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_sends_no_valid_key_is_refused(keyed: Keyed) -> None:
    for headers in (
        {},
        {"authorization": keyed.key},
        {"authorization": f"Basic {keyed.key}"},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {keyed.key}x"},
        {"authorization": f"Bearer {digest(keyed.key)}"},
        {"authorization": "Bearer " + "x" * 30_000},
        {b"authorization": b"Bearer \xff\xfe"},
        [("authorization", f"Bearer {keyed.key}"), ("authorization", "Bearer x")],
    ):
        response = keyed.get("/v1/models", headers=headers)
        assert response.status_code == 401
        error = response.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_api_key", None)
        assert keyed.key not in error["message"]
        assert response.headers["www-authenticate"] == "Bearer"
    assert keyed.get("/v1/models", headers={"authorization": f"bearer  {keyed.key}"}).status_code == 200
    with pytest.raises(openai.AuthenticationError) as raised:
        keyed.client("wrong").models.list()
    assert raised.value.code == "invalid_api_key"


def test_only_health_is_answered_without_a_key(keyed: Keyed) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert keyed.get(path).status_code == 200
    for path in ("/", "/metrics", "/docs.json", "/schema.json", "/v1/models", "/v1/x", "//healthz", "/healthz/x", "/x"):
        assert keyed.get(path).status_code == 401, path


def test_a_running_service_sees_keys_come_and_go(keyed: Keyed) -> None:
    key = keyed.store.make("guest")
    until_known(keyed, key)
    keyed.store.revoke("guest")
    until_known(keyed, key, 401)
    expired = keyed.store.make("late", expires_in=timedelta(seconds=2.5))
    until_known(keyed, expired)
    time.sleep(2.5)
    assert keyed.get("/v1/models", expired).status_code == 401


def test_keys_that_cannot_be_read_let_nobody_in(keyed: Keyed) -> None:
    with sqlite3.connect(keyed.traffic.with_name("keys.db")) as database:
        database.execute("ALTER TABLE keys RENAME TO hidden")
    try:
        until_known(keyed, keyed.key, 503)
        assert keyed.get("/v1/models", keyed.key).json()["error"]["code"] == "keys_not_read"
        assert keyed.get("/healthz").status_code == 200
    finally:
        with sqlite3.connect(keyed.traffic.with_name("keys.db")) as database:
            database.execute("ALTER TABLE hidden RENAME TO keys")
    until_known(keyed, keyed.key)


def test_requests_are_limited_by_the_minute_and_the_key(keyed: Keyed) -> None:
    key = keyed.store.make("hurried", requests_per_minute=2)
    until_known(keyed, key)
    for left in ("1", "0"):
        response = keyed.get("/v1/models", key)
        assert response.status_code == 200
        assert response.headers["x-ratelimit-limit-requests"] == "2"
        assert response.headers["x-ratelimit-remaining-requests"] == left
        assert 0 < float(response.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    with pytest.raises(openai.RateLimitError) as raised:
        keyed.client(key).models.list()
    assert (raised.value.code, raised.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 50 <= int(raised.value.response.headers["retry-after"]) <= 60
    assert raised.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    unlimited = keyed.get("/v1/models", keyed.key)
    assert unlimited.status_code == 200
    assert not any(name.startswith("x-ratelimit") for name in unlimited.headers)


def test_tokens_are_limited_by_the_minute(keyed: Keyed) -> None:
    key = keyed.store.make("talkative", tokens_per_minute=100)
    until_known(keyed, key)
    client = keyed.client(key)
    raw = client.chat.completions.with_raw_response.create(model="smol", messages=QUESTION, max_tokens=8)  # type: ignore[arg-type]
    usage = raw.parse().usage
    assert usage is not None
    assert raw.headers["x-ratelimit-limit-tokens"] == "100"
    left = 100 - usage.prompt_tokens - 8
    assert left <= int(raw.headers["x-ratelimit-remaining-tokens"]) <= left + 8  # a new minute may have begun
    with pytest.raises(openai.RateLimitError) as raised:
        for _ in range(3):
            client.chat.completions.create(model="smol", messages=QUESTION, stream=True).close()  # type: ignore[call-overload]
    assert raised.value.code == "rate_limit_exceeded"
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 120
    with pytest.raises(openai.RateLimitError, match="this request may take") as raised:
        client.chat.completions.create(model="smol", messages=QUESTION, n=8, max_tokens=8, temperature=1)  # type: ignore[arg-type]
    assert "retry-after" not in raised.value.response.headers


def test_the_metrics_count_what_was_answered(keyed: Keyed) -> None:
    def metrics() -> dict[str, float]:
        text = keyed.get("/metrics", keyed.key).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    assert keyed.get("/v1/evil%22%7D%0a%7B", keyed.key).status_code == 404
    before = metrics()
    client = keyed.client(keyed.key)
    usage = client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=5).usage  # type: ignore[arg-type]
    assert usage is not None
    assert list(client.chat.completions.create(model="smol", messages=QUESTION, max_tokens=5, stream=True))  # type: ignore[call-overload]
    assert keyed.get("/v1/models").status_code == 401
    after = metrics()

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grew('ontopic_requests_total{status="200"}') == 3  # the page before is one of them
    assert grew('ontopic_requests_total{status="401"}') == 1
    assert grew('ontopic_tokens_total{kind="prompt"}') == 2 * usage.prompt_tokens
    assert grew('ontopic_tokens_total{kind="completion"}') == 10
    assert grew("ontopic_latency_seconds_count") == 2
    assert grew("ontopic_first_token_seconds_count") == 1
    assert after["ontopic_queue_length"] == 0
    assert not any("evil" in name for name in after)


def test_a_service_whose_store_cannot_be_written_is_not_ready(keyed: Keyed) -> None:
    with sqlite3.connect(keyed.traffic) as database:
        database.execute("ALTER TABLE traffic RENAME TO hidden")
    try:
        response = keyed.get("/readyz")
        assert response.status_code == 503
        assert "traffic store cannot be written" in response.text
        assert keyed.get("/healthz").status_code == 200
    finally:
        with sqlite3.connect(keyed.traffic) as database:
            database.execute("ALTER TABLE hidden RENAME TO traffic")
    assert keyed.get("/readyz").status_code == 200


def test_without_auth_only_loopback_is_served(model_folder: Path, tmp_path: Path) -> None:
    served = ServedModel(smol(model_folder, tmp_path, host="localhost", no_auth=True))
    with served:
        assert httpx.get(f"{served.base_url}/models", trust_env=False).status_code == 200
    for host in ("0.0.0.0", "::", "10.1.2.3", "bank.example", "", "127.0.0.1\n"):  # noqa: S104
        with pytest.raises(UserError, match=r"host|keys"):
            ServedModel(smol(model_folder, tmp_path, host=host, no_auth=True))
