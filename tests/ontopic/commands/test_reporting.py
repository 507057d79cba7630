"""``--json``, ``--quiet``, ``NO_COLOR``, completion and exit codes of the command line."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from loopback import ROOT
from pydantic import BaseModel
from typer.testing import CliRunner

import run
from ontopic.commands.reporting import as_text, reporting
from ontopic.registry.promotions import open_registry
from ontopic.registry.rollouts import Rollout
from ontopic.state.workspace import open_workspace
from ontopic.statistics.rates import rate

REPORTS = ["status", "alerts", "traffic", "keys list", "record", "record verify", "policy check"]
WITHOUT = {  # they do something, wait for a person, or write a file that is what is asked for
    "approve", "reject", "promote", "rollback", "delete", "export", "label", "serve", "ui", "demo", "policy new",
    "traffic import", "traffic export", "traffic prune", "traffic erase", "traffic adopt", "state move",
    "alerts close", "alerts test", "alerts send", "preferences export", "preferences drop", "preferences change",
    "preferences restore", "keys make", "keys revoke",
}  # fmt: skip


class Said(BaseModel):
    text: str
    share: float


def called(*arguments: str, state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *arguments, "--state", str(state)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_is_one_document_and_nothing_else(command: str, state_before: Path) -> None:
    (state_before / "place").write_text("/elsewhere")  # so that it says something on its way
    done = called(*command.split(), "--json", state=state_before)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), list | dict)
    assert done.stdout.isascii()
    assert "the state folder was at /elsewhere before" in done.stderr


def test_quiet_leaves_progress_out_and_results_in(state_before: Path, tmp_path: Path) -> None:
    (state_before / "place").write_text(str(state_before))
    loud = called("traffic", "export", str(tmp_path / "a.jsonl"), state=state_before)
    quiet = called("traffic", "export", str(tmp_path / "b.jsonl"), "--quiet", state=state_before)
    assert "export: " in loud.stderr and quiet.stderr == ""
    assert quiet.stdout.endswith(f"records are in {tmp_path}/b.jsonl\n")


def test_each_command_reports_in_json_or_is_known_not_to() -> None:
    def walk(command: object, path: str) -> dict[str, set[str]]:
        found = {path: {name for each in command.params for name in each.opts}}  # type: ignore[attr-defined]
        for name, each in getattr(command, "commands", {}).items():
            found |= walk(each, f"{path} {name}".strip())
        return found

    commands = walk(typer.main.get_command(run.app), "")
    groups = {path for path in commands if any(other.startswith(f"{path} ") for other in commands) and path}
    without = {path for path, options in commands.items() if "--json" not in options} - groups
    assert without == WITHOUT


def test_a_document_is_json_for_programs_and_inert_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True) as document:
        print("aside")
        document(Said(text="\x1b[2J\u202e\ud800 ä", share=float("nan")))
    out, err = capsys.readouterr()
    assert err == "aside\n"
    assert json.loads(out) == {"text": "\x1b[2J\u202e\ud800 ä", "share": None}
    assert out.isascii() and "\x1b" not in out
    with reporting(as_json=False) as document:
        print("for a person")
        document(Said(text="", share=0))
    assert capsys.readouterr().out == "for a person\n"
    assert json.loads(as_text([rate(0, 0)])) == [{"value": None, "low": 0.0, "high": 1.0, "n": 0}]


def test_no_client_learns_how_conversations_are_drawn(state_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state_before / "place").write_text(str(state_before))
    drawn = Rollout(version="2", champion="1", stages=(5, 100), stage=0, since=datetime.now(UTC), key="secret")
    monkeypatch.setattr("ontopic.commands.where_it_stands.rollout_of", lambda _: drawn)
    said = CliRunner().invoke(run.app, ["status", "--json", "--state", str(state_before)])
    assert json.loads(said.stdout)["rollout"]["share"] == 5
    assert "secret" not in said.stdout


def test_an_option_before_a_command_is_not_lost() -> None:
    for arguments in (
        ["--json", "status"],
        ["traffic", "--json", "export", "x"],
        ["preferences", "-n", "3", "show", "x"],
    ):
        done = subprocess.run(
            [sys.executable, "run.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "stands before the command; put it behind" in done.stderr


def on_terminal(*arguments: str, **variables: str) -> str:
    """What a command shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "run.py", *arguments], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment | variables
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_no_color_means_no_colour(state_before: Path) -> None:
    (state_before / "place").write_text(str(state_before))
    arguments = ("status", "--state", str(state_before))
    colour = re.compile(r"\x1b\[[0-9;]*(3[1-7]|9[0-7])m")
    assert colour.search(on_terminal(*arguments))
    assert not colour.search(on_terminal(*arguments, NO_COLOR="1"))


def test_a_shell_completes_the_script() -> None:
    words = {"COMP_WORDS": "./run.py\nst", "COMP_CWORD": "1", "_RUN.PY_COMPLETE": "complete_bash"}
    assert os.access(ROOT / "run.py", os.X_OK)
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=ROOT, env=os.environ | words, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["status", "state"], "")
    named = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # tests need have no shell above them
    command = [sys.executable, "run.py", "--show-completion", "bash"]
    script = subprocess.run(command, cwd=ROOT, env=named, capture_output=True, text=True, check=True)
    assert "complete -o default" in script.stdout and script.stdout.endswith("run.py\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["status", "--nonsense"], 2),
        (["nonsense"], 2),
        (["promote", "99", "--why", "x"], 1),
        (["approve", "1", "--why", "x"], 1),
        (["alerts", "close", "77"], 1),
    ],
)
def test_a_mistake_has_the_code_that_is_documented(arguments: list[str], code: int, state_before: Path) -> None:
    (state_before / "place").write_text(str(state_before))
    done = called(*arguments, state=state_before)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_registry_without_a_champion_has_no_score(tmp_path: Path) -> None:
    from ontopic.commands.where_it_stands import gate_score

    assert gate_score(open_registry(open_workspace(tmp_path), "none")) is None
