"""Two replicas that share a database, behind HAProxy with the file that is shipped, under load."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from loopback import ROOT, Reply, running_server
from served import openai_client

from ontopic.config.settings import proxied
from ontopic.errors import UserError
from ontopic.traffic.store import TrafficStore
from serving.keys import KeyStore
from serving.process import ServedModel, Serving

pytestmark = pytest.mark.slow

MODEL = "ontopic-replicas"
MESSAGES: Any = [{"role": "user", "content": "How do I freeze my card?"}]


@dataclass
class Replicas:
    """Services from state folders of their own, and the balancer before them."""

    folder: Path
    database: str
    answering: dict[str, Any]
    ports: list[int]
    served: dict[int, ServedModel] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The balancer's."""
        return f"http://127.0.0.1:{self.ports[0]}/v1"

    @property
    def store(self) -> KeyStore:
        return KeyStore(self.database)

    def new_key(self, name: str, **limits: int) -> str:
        """Of a name that is given again with the next answering."""
        with contextlib.suppress(UserError):
            self.store.revoke(name)
        return self.store.make(name, **limits)

    def url_of(self, i: int) -> str:
        return f"http://127.0.0.1:{self.ports[i]}/v1"

    def start(self, i: int) -> None:
        self.served[i] = ServedModel(
            Serving(
                **self.answering,
                model_name=MODEL,
                traffic=self.database,
                state=self.folder / str(i),
                port=self.ports[i],
                keys=self.database,
            )
        )
        self.served[i].__enter__()

    def end(self, i: int) -> None:
        self.served.pop(i).__exit__()

    def is_up(self, i: int) -> bool:
        """As the balancer last said."""
        said = [line for line in (self.folder / "haproxy.log").read_text().splitlines() if f"/replica{i} is" in line]
        return bool(said) and f"replica{i} is UP" in said[-1]

    def kill(self, i: int) -> None:
        """As a machine's end: all processes at once."""
        supervisor = psutil.Process(self.served[i].pid)
        processes = [*supervisor.children(recursive=True), supervisor]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=30)  # while one still frees its memory, its port takes connections


def status_of(url: str, key: str = "", *, posted: dict[str, Any] | None = None) -> int:
    """What a replica answers; 0 where it does not."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    method = "POST" if posted else "GET"
    try:
        return httpx.request(method, url, headers=headers, json=posted, trust_env=False, timeout=10).status_code
    except httpx.TransportError:
        return 0


@pytest.fixture(scope="module", params=["proxy", "weights"])
def answering(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the replicas answer with: another server's answers, or the embedded model."""
    if request.param == "weights":
        yield {"model_folder": request.getfixturevalue("model_folder"), "model_version": "1", "max_new_tokens": 16}
        return
    os.environ["UPSTREAM_KEY"] = "none"
    with running_server() as server:
        server.reply = lambda _: Reply("".join(f"Step {i}.\n" for i in range(8)), delay_s=0.2, pause_s=0.1)
        upstream = proxied("gpt-4o", server.url, api_key_variable="UPSTREAM_KEY", timeout_s=60)
        yield {"upstream": upstream, "model_version": "gpt-4o"}


@pytest.fixture(scope="module")
def running(
    database_of_file: str, answering: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if haproxy is None:
        pytest.skip("HAProxy is not installed (apt-get install haproxy)")
    folder = tmp_path_factory.mktemp("replicas")
    os.environ["ONTOPIC_STATE_URL"] = database_of_file
    with contextlib.ExitStack() as ending:
        ending.callback(os.environ.pop, "ONTOPIC_STATE_URL")
        replicas = Replicas(folder, database_of_file, answering, free_ports(3))
        listening = {"ONTOPIC_LISTEN": f"127.0.0.1:{replicas.ports[0]}"}
        listening |= {f"ONTOPIC_REPLICA_{i}": f"127.0.0.1:{replicas.ports[i]}" for i in (1, 2)}
        log = ending.enter_context((folder / "haproxy.log").open("wb"))
        command = [haproxy, "-db", "-f", str(ROOT / "serving" / "haproxy.cfg")]
        balancer = subprocess.Popen(command, env=os.environ | listening, stdout=log, stderr=log)
        ending.callback(balancer.wait)
        ending.callback(balancer.terminate)
        try:
            for i in (1, 2):
                replicas.start(i)
            yield replicas
        finally:
            for i in tuple(replicas.served):
                replicas.end(i)


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as open_:
        probes = [open_.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture
def replicas(running: Replicas) -> Replicas:
    """Both replicas up, as the balancer sees it."""
    for i in (1, 2):
        if i not in running.served:
            running.start(i)
    deadline = time.monotonic() + 60
    while not all(running.is_up(i) for i in (1, 2)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return running


@dataclass
class Asked:
    """One request of a load.

    Attributes:
        began, ended: seconds since 1970.
        whole: whether its answer came to its end.
    """

    began: float
    ended: float
    failed: Exception | None
    record_id: str
    whole: bool
    stream: bool


@dataclass
class Load:
    """Clients that ask the balancer without a pause, half of them for streams."""

    url: str
    key: str
    clients: int = 8
    retries: int = 0
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=[i % 2 == 0]) for i in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def failures(self) -> list[Asked]:
        return [each for each in self.asked if each.failed is not None]

    def _ask_on(self, stream: bool) -> None:
        with openai_client(self.url, self.key).with_options(max_retries=self.retries, timeout=60) as client:
            while not self._ended.is_set():
                began, record_id, whole, failed = time.time(), "", False, None
                try:
                    create = client.chat.completions.with_raw_response.create
                    raw = create(model=MODEL, messages=MESSAGES, stream=stream)
                    record_id, answer = raw.headers["x-ontopic-record-id"], raw.parse()
                    for part in answer if stream else [answer]:
                        whole = part.choices[0].finish_reason is not None
                except (openai.APIError, httpx.TransportError) as error:
                    failed = error
                self.asked.append(Asked(began, time.time(), failed, record_id, whole, stream))


def stored(database: str) -> Counter[str]:
    with TrafficStore(database) as traffic:
        return Counter(record.id for record in traffic.stream())


def test_a_key_is_known_to_both_and_revoked_at_both(replicas: Replicas) -> None:
    key = replicas.new_key("guest")
    for status, change in ((200, None), (401, lambda: replicas.store.revoke("guest"))):
        if change:
            change()
        began = time.monotonic()
        while {status_of(f"{replicas.url_of(i)}/models", key) for i in (1, 2)} != {status}:
            assert time.monotonic() - began < 3
            time.sleep(0.02)


def test_a_limit_is_that_of_both_together(replicas: Replicas) -> None:
    key = replicas.new_key("hurried", requests_per_minute=7)
    time.sleep(1.5)
    statuses = [status_of(f"{replicas.url_of(1 + i % 2)}/models", key) for i in range(20)]
    assert statuses == [200] * 7 + [429] * 13


def test_a_thumb_reaches_the_record_that_the_other_replica_made(replicas: Replicas) -> None:
    key = replicas.new_key("thumbs")
    time.sleep(1.5)
    with openai_client(replicas.url_of(1), key) as client:
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    record_id = raw.headers["x-ontopic-record-id"]
    asked = {"record_id": record_id, "thumb": "down", "correction": "In the app."}
    assert status_of(f"{replicas.url_of(2)}/feedback", key, posted=asked) == 200
    told = httpx.get(
        f"{replicas.url_of(2)}/answers/{record_id}", headers={"authorization": f"Bearer {key}"}, trust_env=False
    ).json()
    assert told["record_id"] == record_id
    with TrafficStore(replicas.database) as traffic:
        assert [each.thumb for each in traffic.feedback(ids=[record_id])] == ["down"]


def test_a_conversation_that_nobody_names_is_the_same_one_at_both(replicas: Replicas) -> None:
    key, ids = replicas.new_key("turns"), list[str]()
    time.sleep(1.5)
    for i in (1, 2):
        with openai_client(replicas.url_of(i), key) as client:
            raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, user="ann")
        ids.append(raw.headers["x-ontopic-record-id"])
    with TrafficStore(replicas.database) as traffic:
        one, other = traffic.records(ids)
    assert (one.conversation, one.user) == (other.conversation, other.user)
    assert one.conversation
    assert one.user not in ("", "ann")


def test_none_fails_when_a_replica_is_told_to_stop(replicas: Replicas) -> None:
    key = replicas.new_key("drain")
    time.sleep(1.5)
    with Load(replicas.url, key) as load:
        time.sleep(2)
        supervisor = psutil.Process(replicas.served[1].pid)
        supervisor.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert status_of(f"{replicas.url_of(1).removesuffix('/v1')}/readyz") == 503
        assert psutil.wait_procs([supervisor], timeout=120)[1] == []
        time.sleep(1)
    replicas.end(1)
    assert load.failures == []
    assert all(each.whole for each in load.asked)
    kept = stored(replicas.database)
    assert all(kept[each.record_id] == 1 for each in load.asked)


def test_only_what_was_under_way_fails_when_a_replica_is_killed(replicas: Replicas) -> None:
    key = replicas.new_key("killed")
    time.sleep(1.5)
    with Load(replicas.url, key) as once, Load(replicas.url, key, clients=4, retries=3) as again:
        time.sleep(2)
        killed_at = time.time()
        replicas.kill(2)
        dead_at = time.time()
        time.sleep(6)
    replicas.end(2)
    under_way = [each for each in once.asked if each.began <= dead_at and killed_at <= each.ended]
    whole = [each for each in (*once.asked, *again.asked) if each.failed is None]
    assert all(each.whole for each in whole)
    failures = once.failures
    assert 0 < len(failures) < len(under_way)  # what the other replica had begun is none of them
    later = [(each.began - dead_at, each.failed) for each in failures if each not in under_way]
    assert later == []
    for each in failures:
        if isinstance(each.failed, openai.APIStatusError):
            assert each.failed.status_code in (502, 503)
            assert each.failed.response.headers["retry-after"] in ("1", "2")
            assert each.failed.code in ("replica_ended", "no_replica")
        else:  # a stream that had begun breaks off, and does not look whole
            assert each.stream
            assert not each.whole
    assert [each for each in again.failures if not (each.stream and each.record_id)] == []
    kept = stored(replicas.database)
    assert all(kept[each.record_id] == 1 for each in whole)
    assert max(kept.values()) == 1
