"""The command line: what its quick commands import, that they read a state folder of the version before, and what
they do in environments as people have them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from loopback import ROOT

HEAVY = ("torch", "transformers", "evidently", "zenml", "mlflow", "bentoml", "sklearn", "scipy", "pandas")
QUICK = [
    ["--help"],
    ["status"],
    ["keys", "list"],
    ["alerts"],
    ["traffic"],
    ["promote", "2", "--why", "it is better"],
    ["rollback", "--why", "it is worse"],
    ["record"],
    ["record", "2"],
    ["record", "verify"],
]
SCRIPT = """
import json, runpy, sys
heavy = json.loads(sys.argv.pop(1))
sys.argv[0] = "run.py"
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
print("\\nimported:", json.dumps([name for name in heavy if name in sys.modules]))
"""


@pytest.mark.parametrize("arguments", QUICK, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_quick_command_imports_no_framework(arguments: list[str], state_before: Path) -> None:
    state = [] if arguments == ["--help"] else ["--state", str(state_before)]
    if arguments[0] == "rollback":
        promote = [sys.executable, "run.py", "promote", "2", "--why", "first", *state]
        subprocess.run(promote, cwd=ROOT, check=True, capture_output=True)
    command = [sys.executable, "-c", SCRIPT, json.dumps(HEAVY), *arguments, *state]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"


def test_help_and_completion_wait_for_no_database_library() -> None:
    code = "import sys, run; print([name for name in ('sqlalchemy', 'numpy', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def called(*arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """The command line, with variables set, or unset where they are ``None``."""
    own = os.environ | variables
    own = {name: value for name, value in own.items() if value is not None}
    command = [sys.executable, "run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, errors="replace", check=False)


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"COLUMNS": "0"},
        {"COLUMNS": "wide", "LINES": "-3"},
        {"TERM": "dumb", "TZ": "No/Where"},
        {"HOME": None},
        {"HOME": "/dev/null/home", "TMPDIR": "/no/such/folder"},
        {"PYTHONWARNINGS": "error"},
        {"PYTHONOPTIMIZE": "2"},
        {"MLFLOW_RUN_ID": "none", "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9", "MLFLOW_EXPERIMENT_ID": "77"},
        {"ZENML_STORE_URL": "http://127.0.0.1:9", "ZENML_ACTIVE_STACK_ID": "none"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_status_is_the_same_in_any_environment(variables: dict[str, str | None], state_before: Path) -> None:
    done = called("status", "--state", str(state_before), **variables)
    assert done.returncode == 0, done.stderr
    assert "version 1, rolled back to" in done.stdout


@pytest.mark.parametrize("arguments", [["-h"], ["status", "-h"], ["traffic", "export", "-h"], ["--help"]])
def test_help_is_there_even_where_docstrings_are_not(arguments: list[str]) -> None:
    done = called(*arguments, PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: run.py")
    assert "Show this message and exit." in done.stdout


def test_the_release_is_said() -> None:
    assert called("--version").stdout == f"OnTopic {metadata.version('ontopic')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["traffic"],
        ["alerts"],
        ["keys", "list"],
        ["promote", "1", "--why", "x"],
        ["ui"],
        ["watch"],
        ["record"],
    ],
)
def test_a_mistyped_state_folder_is_not_made(arguments: list[str], tmp_path: Path) -> None:
    done = called(*arguments, "--state", str(tmp_path / "typo"))
    assert done.returncode == 1
    said = "OnTopic has kept nothing there yet; check --state, or run `python run.py` first"
    assert done.stderr == f"error: {tmp_path}/typo: {said}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert called("status", "--state", str(tmp_path)).returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_several_mistakes_are_several_lines(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    config["serving"] = {"prot": 1}
    config["training"]["epochs"] = "many"
    del config["model"]
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(config))
    lines = called("status", "--config", str(tmp_path / "wrong.yaml"), "--state", str(tmp_path)).stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"error: {tmp_path}/wrong.yaml: ") for line in lines)


@pytest.mark.parametrize("name", ["alerts.db", "windows.db", "mlflow.db", "traffic.db"])
def test_a_damaged_database_is_one_sentence_with_its_name(name: str, state_before: Path) -> None:
    (state_before / "place").write_text(str(state_before))
    (state_before / name).write_bytes(b"garbage " * 999)
    done = called("status", "--state", str(state_before))
    assert done.returncode == 1
    assert name in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_state_folder_that_was_moved_goes_on_under_its_new_name(state_before: Path, tmp_path: Path) -> None:
    moved = state_before.rename(tmp_path / "my stäte & more")
    done = called("status", "--state", str(moved))
    assert done.returncode == 0
    assert "the state folder was at " in done.stderr
    page = done.stdout.rpartition("The newest window's page: ")[2].strip()
    assert Path(page).is_relative_to(moved)
    assert called("status", "--state", str(moved)).stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "| head -0", ">/dev/full"])
def test_a_stream_that_is_closed_or_full_is_no_traceback(closed: str, state_before: Path) -> None:
    line = f"{shlex.join([sys.executable, 'run.py', 'traffic', '--state', str(state_before)])} {closed}"
    done = subprocess.run(["/bin/bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert (done.returncode, "No space left" in done.stderr) == ((1, True) if "full" in closed else (0, False))
