"""What commands write to where a user says, and what they say beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.records import Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
STDOUT = pytest.param(
    "/dev/stdout", marks=pytest.mark.skipif(not Path("/dev/stdout").is_symlink(), reason="this machine has none")
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with TrafficStore(Workspace(root=tmp_path / "state").traffic, MODEL) as store:
        store.add_many(Record(question=f"q{i}", answer="a", id=str(i)) for i in range(3))
    return tmp_path / "state"


def export(state: Path, out: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", "traffic", "export", out, "--state", str(state)]
    options = {"stdout": subprocess.PIPE} | options
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("out", [STDOUT, "/dev/fd/1", "/proc/self/fd/1"])
def test_data_on_standard_output_is_data_alone(state: Path, out: str, tmp_path: Path) -> None:
    done = export(state, out)
    assert [json.loads(line)["question"] for line in done.stdout.splitlines()] == ["q0", "q1", "q2"]
    assert f"3 records are in {out}" in done.stderr
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as file:
        assert export(state, out, stdout=file).returncode == 0
    assert log.read_text() == "before\n" + done.stdout


@pytest.mark.parametrize("out", ["/dev/full", "folder", "none/out.jsonl"])
def test_what_cannot_be_written_is_one_sentence(state: Path, out: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = out if out.startswith("/") else str(tmp_path / out)
    done = export(state, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {path}: cannot be written (")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_leaves_early_is_one_sentence(state: Path) -> None:
    with TrafficStore(Workspace(root=state).traffic, MODEL) as store:
        store.add_many(Record(question="q" * 1000, answer="a", id=f"x{i}") for i in range(2000))
    read, write = os.pipe()
    os.close(read)
    try:
        done = export(state, "/dev/fd/1", stdout=write)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert "error: /dev/fd/1: cannot be written (Broken pipe)" in done.stderr
    assert "Traceback" not in done.stderr
