"""``judge --engine ray``: the verdicts of the default engine, whoever is killed; Ray itself says nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from from_outside import write_settings
from loopback import ROOT, ChatServer, Reply, running_server
from pyarrow import parquet

from ontopic.config.settings import load_settings
from ontopic.records import Record
from ontopic.traffic.store import TrafficStore

pytestmark = pytest.mark.slow  # Ray takes ten seconds to start, and a minute on a busy machine
pytest.importorskip("ray", reason="the extra ray is not installed")
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b[0m",
    "a\u202egnp.exe",
    "nul \0 here",
    "'; DROP TABLE x; --",
]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAID = {"explanation": "\x1b[2J It is.", "in_scope": True, "declined": False, "verdict": "pass", "score": 0.9}


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running_server() as chat:
        chat.reply = lambda _: Reply(json.dumps(SAID), delay_s=0.05)
        yield chat


class Bank:
    """A state folder whose judge is an LLM on the loopback interface."""

    def __init__(self, folder: Path, server: ChatServer) -> None:
        self.folder, self.server = folder, server
        self.config = write_settings(folder / "config", server.url)
        # Ray's workers give way to all others, which on a busy machine would take minutes.
        own = {"OPENAI_API_KEY": "secret", "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "RAY_worker_niceness": "0"}
        self.environment = os.environ | own
        self.started = list[subprocess.Popen[str]]()

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "run.py"), "judge", "--config", str(self.config)]
        command += ["--state", str(self.folder / "state"), *options]
        pipe = subprocess.PIPE
        own = {"env": self.environment, "cwd": self.folder}
        self.started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **own))
        return self.started[-1]

    def judge(self, *options: str, meanwhile: Callable[[subprocess.Popen[str]], object] | None = None) -> str:
        process = self.start(*options)
        if meanwhile:
            meanwhile(process)
        out, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
        for line in said.splitlines():
            assert re.match(r"^  (verdicts: |… \d)", line), said
        return out

    def ray(self, *options: str, meanwhile: Callable[[subprocess.Popen[str]], object] | None = None) -> str:
        return self.judge("--engine", "ray", *options, meanwhile=meanwhile)


@pytest.fixture
def bank(tmp_path: Path, server: ChatServer) -> Iterator[Bank]:
    bank = Bank(tmp_path, server)
    yield bank
    for process in bank.started:  # one that a failed test left
        process.kill()


def write_rows(path: Path, texts: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"Of {text}?", "answer": text} for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def verdicts(out: Path) -> dict[str, list[dict[str, object]]]:
    files = sorted(out.rglob("*.parquet"))
    return {str(f.relative_to(out)): parquet.read_table(f, partitioning=None).to_pylist() for f in files}


def workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "".join(each.cmdline()).startswith("ray::MapWorker"):
                found.append(each)
    return found


def wait(until: Callable[[], object], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_files_are_judged_as_by_the_default_engine_though_a_worker_is_killed(bank: Bank) -> None:
    records, out = bank.folder / "records", bank.folder / "out"
    parts = {
        f"day=2026-01-0{day}/00": [f"{day} {text} {i}" for i in range(20) for text in HOSTILE] for day in (1, 2, 3)
    }
    for name, texts in parts.items():
        write_rows(records / f"{name}.jsonl", texts)
    killed: list[int] = []

    def kill(driver: subprocess.Popen[str]) -> None:
        wait(lambda: len(bank.server.requests) > 30 or driver.poll() is not None)  # a worker is in the middle
        for worker in workers(driver):
            worker.kill()
            killed.append(worker.pid)

    said = bank.ray("--records", str(records), "--out", str(out), meanwhile=kill)
    assert killed
    assert f"300 verdicts on 3 partitions are in {out}" in said
    for name, rows in verdicts(out).items():
        source, lines = records / name.replace(".parquet", ".jsonl"), bank.folder / "lines.jsonl"
        bank.judge("--records", str(source), "--out", str(lines))
        expected = [json.loads(line) for line in lines.read_text().splitlines()]
        assert [{k: v for k, v in row.items() if k not in ("messages", "label")} for row in rows] == expected
    asked = len(bank.server.requests)
    again = bank.ray("--records", str(records), "--out", str(out))
    assert "3 partitions were judged by an earlier call" in again
    write_rows(records / "day=2026-01-02/00.jsonl", ["new"])
    bank.ray("--records", str(records), "--out", str(out))
    assert len(bank.server.requests) == asked + 1
    assert not (bank.folder / "state" / "ray").exists()  # nor what Ray wrote


def test_a_killed_command_is_taken_up_from_the_store_with_whole_partitions_kept(
    bank: Bank, postgres_database: str
) -> None:
    bank.environment["ONTOPIC_TRAFFIC_URL"] = postgres_database
    with TrafficStore(postgres_database, load_policy_name(bank.config)) as store:
        store.add_many(
            Record(
                question=f"What {i}?", answer=HOSTILE[i % 4], id=f"r{i:03}", asked_at=NOON + i * timedelta(minutes=1)
            )
            for i in range(480)
        )
    out = bank.folder / "out"
    bank.server.reply = lambda _: Reply(json.dumps(SAID), delay_s=2.0)  # of a partition's records all at once
    driver = bank.start("--engine", "ray", "--out", str(out))
    wait(lambda: len(list(out.rglob("[0-9]*.parquet"))) >= 2 or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()
    started = [each.pid for each in psutil.Process(driver.pid).children(recursive=True)]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait(lambda: not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in started))
    whole = {path: path.stat().st_mtime_ns for path in out.rglob("[0-9]*.parquet")}
    assert 2 <= len(whole) < 8
    said = bank.ray("--out", str(out))
    assert f"{len(whole)} partitions were judged by an earlier call" in said
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    rows = [row for part in verdicts(out).values() for row in part]
    assert [row["id"] for row in rows] == [f"r{i:03}" for i in range(480)]
    assert {row["verdict"] for row in rows} == {"pass"}
    assert [path for path in out.rglob("*") if path.name.startswith(".")] == []


def load_policy_name(config: Path) -> str:
    from ontopic.config.policy import load_policy

    return load_policy(load_settings(config).policy).registered_model


def test_a_cluster_is_used_by_its_address_and_left_running(bank: Bank) -> None:
    write_rows(bank.folder / "records.jsonl", ["one", "two"])
    (bank.folder / "token").write_text(secrets.token_hex(32))  # without one, nobody may use a cluster
    bank.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(bank.folder / "token")}
    bank.environment["NO_PROXY"] = "*"  # Ray's own address is not the loopback interface's
    ray = str(Path(sys.executable).with_name("ray"))
    variables = bank.environment | {"RAY_USAGE_STATS_ENABLED": "0"}
    options = [
        "--head",
        "--block",
        "--port=0",
        "--num-cpus=1",
        "--include-dashboard=false",
    ]
    options.append(f"--temp-dir={tempfile.mkdtemp(prefix='ray-')}")
    with (bank.folder / "head.log").open("w") as log:
        head = subprocess.Popen([ray, "start", *options], stdout=log, stderr=log, env=variables)
    try:
        found = re.compile(r"--address='([\d.]+:\d+)'")
        wait(lambda: found.search((bank.folder / "head.log").read_text()) or head.poll() is not None)
        address = found.search((bank.folder / "head.log").read_text())
        assert address is not None
        arguments = ["--records", str(bank.folder / "records.jsonl"), "--out", str(bank.folder / "out")]
        said = bank.ray("--ray-address", address[1], *arguments)
        assert "2 verdicts on 1 partitions" in said
        assert head.poll() is None
    finally:
        head.terminate()
        head.wait(timeout=60)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "ray.invalid:6379"])
def test_a_cluster_that_is_not_there_is_said_in_a_sentence(bank: Bank, address: str) -> None:
    write_rows(bank.folder / "records.jsonl", ["one"])
    arguments = ["--records", str(bank.folder / "records.jsonl"), "--out", str(bank.folder / "out")]
    process = bank.start("--engine", "ray", "--ray-address", address, *arguments)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"Ray cannot be reached at {address}" in said
    assert "Traceback" not in said
