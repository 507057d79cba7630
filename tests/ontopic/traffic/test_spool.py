"""While the traffic store can't be written: records wait on the disk, whole and once, and are stored when it can."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from served import smol

from ontopic.records import Message, Record
from ontopic.traffic.spool import Spool
from ontopic.traffic.spool_index import SpoolIndex, known_spools
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def record(number: int, question: str = "q?") -> Record:
    return Record(
        question=question,
        answer="answer",
        in_scope=None,
        id=f"r{number}",
        model_version="1",
        asked_at=NOON,
        latency_s=0.5,
        prompt_tokens=3,
        completion_tokens=4,
        finished=False,
    )


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rename(path: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute(f"ALTER TABLE {old} RENAME TO {new}")


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[TrafficStore]:
    with TrafficStore(tmp_path / "traffic.db") as store:
        yield store


def test_records_wait_until_the_store_takes_them(tmp_path: Path, traffic: TrafficStore) -> None:
    rename(tmp_path / "traffic.db", "traffic", "away")
    spool = Spool(tmp_path / "spool", traffic)
    for number in range(3):
        spool.add(record(number))
    asked = "my card is 4111 1111 1111 1111"
    turns = (Message(role="user", content=f"Hi, {asked}"), Message(role="user", content=asked))
    spool.add(record(3, asked).model_copy(update={"messages": turns}))
    time.sleep(0.3)
    assert spool.waiting() == 4
    assert not any("4111" in path.read_text() for path in (tmp_path / "spool").iterdir())
    rename(tmp_path / "traffic.db", "away", "traffic")
    until(lambda: spool.waiting() == 0)
    found = traffic.records()
    assert found[:3] == [record(number) for number in range(3)]
    assert found[3].redacted == {"card": 1}
    assert [each["content"] for each in found[3].request] == ["Hi, my card is [card]", "my card is [card]"]
    spool.close()


def test_what_an_earlier_process_left_is_taken_up_once(tmp_path: Path, traffic: TrafficStore) -> None:
    rename(tmp_path / "traffic.db", "traffic", "away")
    first = Spool(tmp_path / "spool", traffic)
    for number in range(5):
        first.add(record(number))
    first.close()
    (tmp_path / "spool" / "torn.part").write_text('{"question": "cut o')  # by a kill; no client got an answer to it
    (tmp_path / "spool" / "a.json").write_text('{"question": 1}')  # no record
    rename(tmp_path / "traffic.db", "away", "traffic")
    traffic.add(record(0))  # it was stored, but its file was not deleted any more
    second = Spool(tmp_path / "spool", traffic)
    until(lambda: second.waiting() == 0)
    assert [each.id for each in traffic.records()] == [f"r{number}" for number in range(5)]
    assert (tmp_path / "spool" / "a.bad").exists()
    second.close()


def test_a_disk_that_is_full_is_told(tmp_path: Path, traffic: TrafficStore) -> None:
    spool = Spool(tmp_path / "spool", traffic)
    (tmp_path / "spool").rmdir()
    with pytest.raises(OSError, match="spool"):
        spool.add(record(1))
    spool.close()


def test_a_service_answers_spools_and_catches_up(model_folder: Path, tmp_path: Path) -> None:
    served = ServedModel(smol(model_folder, tmp_path, max_new_tokens=4, spool=True))
    with served:
        root, headers = served.base_url, {"authorization": f"Bearer {served.api_key}"}

        def ask() -> httpx.Response:
            body = {"model": "smol", "messages": [{"role": "user", "content": "hello"}]}
            return httpx.post(f"{root}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)

        def metrics() -> str:
            return httpx.get(f"{root.removesuffix('/v1')}/metrics", headers=headers, trust_env=False).text

        answers = [ask()]
        rename(tmp_path / "traffic.db", "traffic", "away")
        answers += [ask() for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert "ontopic_spooled_records 3.0" in metrics()
        assert httpx.get(f"{root.removesuffix('/v1')}/readyz", trust_env=False).status_code == 200
        rename(tmp_path / "traffic.db", "away", "traffic")
        until(lambda: "ontopic_spooled_records 0.0" in metrics())
        with TrafficStore(tmp_path / "traffic.db") as traffic:
            ids = [each.id for each in traffic.records()]
        assert sorted(ids) == sorted(answer.headers["x-ontopic-record-id"] for answer in answers)


def test_others_know_what_waits_and_that_a_service_is_not_heard_of(
    tmp_path: Path, traffic: TrafficStore, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    index = SpoolIndex.of(tmp_path / "spool")
    assert index is not None
    rename(tmp_path / "traffic.db", "traffic", "away")
    spool = Spool(tmp_path / "spool", traffic, index=index)
    for number in range(3):
        spool.add(record(number))
    until(lambda: [each.waiting for each in known_spools(postgres_database)] == [3])
    (stands,) = known_spools(postgres_database)
    assert stands.replica == f"{socket.gethostname()}:{tmp_path / 'spool'}" and not stands.silent
    assert stands.since is not None and datetime.now(UTC) - stands.since < timedelta(seconds=30)
    (later,) = known_spools(postgres_database, now=datetime.now(UTC) + timedelta(minutes=5))  # it was killed
    assert later.silent and "3 records wait in" in later.in_words and "a service that is started" in later.in_words
    rename(tmp_path / "traffic.db", "away", "traffic")
    until(lambda: known_spools(postgres_database) == [])
    (alive,) = known_spools(postgres_database, now=datetime.now(UTC) + timedelta(minutes=5))
    assert alive.waiting == 0 and alive.silent
    spool.close()
    assert known_spools(postgres_database, now=datetime.now(UTC) + timedelta(minutes=5)) == []
