"""The command ``label``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import ROOT, ChatServer, Reply
from typer.testing import CliRunner, Result

from ontopic.data.drawing import drawable
from ontopic.data.labels import load_labels
from ontopic.errors import UserError
from ontopic.records import Record

RECORDS = [
    Record(question=f"question number {i}, on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(200)
]


@pytest.fixture
def config(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy with four labelled records, judged behind the loopback server."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)

    def reply(request: dict[str, object]) -> Reply:
        grade = {"explanation": "", "in_scope": True, "declined": False, "verdict": "pass"}
        return Reply(json.dumps(grade))

    chat_server.reply = reply
    rows = [{"question": f"q{i}", "answer": "a", "label": "pass", "split": "calibration"} for i in range(4)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = {"question": "q", "in_scope": True, "split": "train"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text(encoding="utf-8"))
    policy |= {"questions": "questions.jsonl", "records": "records.jsonl"}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text(encoding="utf-8"))
    settings |= {"policy": "policy.yaml", "judge": {"kind": "openai", "model": "judge-1"}}
    settings |= {"judge_prompts": str(ROOT / "configs/judge_prompts")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "config.yaml"


@pytest.fixture
def command(config: Path, tmp_path: Path) -> Callable[..., Result]:
    """``run.py label`` with lines typed into it."""
    import run

    def typed(lines: str, *arguments: str) -> Result:
        state = ["--config", str(config), "--state", str(tmp_path / "state")]
        return CliRunner().invoke(run.app, ["label", *state, *arguments], input=lines)

    return typed


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"question": r.question, "answer": r.answer}) + "\n" for r in RECORDS[:40]))
    return path


def test_the_command_labels_a_random_sample_resumes_and_prints_the_card(
    command: Callable[..., Result], records_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    done = command("p\ny\nf\nn\n", "--records", str(records_file), "-n", "3")
    assert done.exit_code == 0, done.output
    assert "sampled at random over time" in done.output
    assert "2 labelled now" in done.output
    # They are of a file, so they say nothing of the traffic.
    assert "none of its records carries a random label. Label 200 more" in done.output
    first = [row.question for row in load_labels(path, "calibration")]
    again = command("p\ny\nq\n", "--records", str(records_file))
    assert "1 labelled now" in again.output
    assert "holds 3 labels of random records and 0 for training" in again.output
    rows = load_labels(path, "calibration")
    assert [row.question for row in rows[:2]] == first
    assert len({row.question for row in rows}) == 3


def test_the_command_asks_for_what_the_judge_is_unsure_of_apart_from_the_card(
    command: Callable[..., Result], records_file: Path, tmp_path: Path, chat_server: ChatServer
) -> None:
    done = command("f\nn\n", "--records", str(records_file), "-n", "3", "--by", "uncertainty")
    assert done.exit_code == 0, done.output
    assert "training split, never into the card" in done.output
    assert chat_server.requests
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    assert load_labels(path, "calibration") == []
    (row,) = load_labels(path, "train")
    assert row.question in [r.question for r in drawable(RECORDS, "uncertainty")]


def test_labels_of_a_file_are_kept_and_nothing_is_asked(
    command: Callable[..., Result], tmp_path: Path, chat_server: ChatServer
) -> None:
    given = tmp_path / "given.csv"
    rows = [f'"{r.question}",{r.answer},{("fail", "pass", "")[i % 3]},So.' for i, r in enumerate(RECORDS[:30])]
    given.write_text("\n".join(["question,answer,label,correction", *rows]))
    done = command("", "--labels", str(given), "--by", "feedback")
    assert done.exit_code == 0, done.output
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    kept = load_labels(path, "train")
    assert kept and load_labels(path, "calibration") == []
    assert f"{len(kept)} labels were kept, 0 were there already" in done.output
    assert "10 rows have no label" in done.output
    assert f"{20 - len(kept)} are of the half of the questions that is left to --by random" in done.output
    assert not chat_server.requests
    for wrong in (["--by", "discordant"], ["--records", str(given)], ["-n", "3"]):
        assert isinstance(command("", "--labels", str(given), *wrong).exception, UserError)
    given.write_text("question,answer,label\nq,a,maybe\n")
    assert "given.csv:2" in str(command("", "--labels", str(given)).exception)


def test_without_traffic_or_records_the_command_says_so(command: Callable[..., Result]) -> None:
    done = command("")
    assert isinstance(done.exception, UserError)
    assert "no traffic yet" in str(done.exception)


def test_the_newest_models_traffic_is_labelled(command: Callable[..., Result], tmp_path: Path) -> None:
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(tmp_path / "state" / "traffic.db", "ontopic-gardening") as traffic:
        for version in ("1", "2"):
            for i in range(20):
                traffic.add(Record(question=f"question {i} of version {version}?", answer="a", model_version=version))
    done = command("q\n")
    assert done.exit_code == 0, done.output
    assert "of version 2?" in done.output
    assert "of version 1?" not in done.output
    assert "0 labelled now" in done.output
    again = command("p\ny\nq\n")
    assert "The score of version 2 is uncorrected: the judge's error on this traffic is unknown" in again.output
    assert "1 of its records carry a random label. Label 199 more: python run.py label --by random -n 199" in (
        again.output
    )


@pytest.fixture
def process(config: Path, tmp_path: Path, records_file: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """``run.py label`` as a process."""

    def start(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "run.py"), "label", "--config", str(config)]
        command += ["--state", str(tmp_path / "state"), "--records", str(records_file), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **streams)

    return start


def test_a_closed_input_is_an_empty_one(process: Callable[..., subprocess.Popen[bytes]]) -> None:
    closed = process("--by", "random", preexec_fn=lambda: os.close(0))
    empty = process("--by", "random", stdin=subprocess.DEVNULL)
    said = closed.communicate(timeout=60)
    assert said == empty.communicate(timeout=60)
    assert (closed.returncode, said[1]) == (0, b"")
    assert b"0 labelled now" in said[0]


def test_ctrl_c_keeps_what_was_labelled_and_leaves(
    process: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    stopped = process(stdin=subprocess.PIPE)
    assert stopped.stdin and stopped.stdout
    stopped.stdin.write(b"p because \xe4\ny\nf\n")  # a reason in Latin-1
    stopped.stdin.flush()
    seen = b""
    while seen.count(b"in scope? (") < 2:
        seen += os.read(stopped.stdout.fileno(), 1000)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert (out.strip(), err.strip()) == (b"", b"stopped; the next run goes on from here")
    rows = load_labels(tmp_path / "state" / "labels" / "gardening.jsonl", "calibration")
    assert [(row.label, row.in_scope, row.why) for row in rows] == [
        ("pass", True, "because \ufffd"),
        ("fail", None, ""),
    ]


def test_the_gates_answers_are_labelled_blind(command: Callable[..., Result], tmp_path: Path) -> None:
    from evaluations import evaluated, judged

    from ontopic.evaluation.discordant import keep_pairs, pairs_of
    from ontopic.state.workspace import Workspace

    done = command("", "--by", "discordant")
    assert "no gate has held a challenger of ontopic-gardening" in str(done.exception)
    sides = [evaluated(judged(60, failing, model)).evaluation for failing, model in ((30, "m"), (5, "n"))]
    keep_pairs(pairs_of(sides[0], sides[1], registered_model="ontopic-gardening"), Workspace(root=tmp_path / "state"))
    done = command("p\nf it guesses\nu\nq\n", "--by", "discordant", "-n", "4")
    assert done.exit_code == 0, done.output
    assert "16 answers of the newest gate wait for a label" in done.output
    assert "| The question is in scope." in done.output or "| The question is out of scope." in done.output
    shown = done.output.split("1 of 16")[1]
    assert not {"champion", "challenger", "version", "verdict", "judge"} & set(
        shown.lower().split("labelled now")[0].split()
    )
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    (row,) = load_labels(path, "evaluation")
    assert row.label == "pass" and load_labels(path, "calibration") == []
    assert "15 answers" in command("q\n", "--by", "discordant", "-n", "4").output
    both = command("", "--by", "discordant", "--records", "x.jsonl")
    assert "exclude each other" in str(both.exception)
