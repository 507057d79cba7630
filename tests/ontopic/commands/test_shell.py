"""What a shell hands a command: `.env` as people have it, streams that are closed or lack characters, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ROOT

TAKE_OVER = """
import os, sys
from pathlib import Path
from ontopic.commands import shell
from ontopic.errors import UserError
try:
    shell.take_over(Path(sys.argv[1]))
except UserError as error:
    sys.exit(f"error: {error}")
print(os.environ.get("NAME"))
"""


def taken(env_file: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "NAME"} | variables
    command = [sys.executable, "-c", TAKE_OVER, str(env_file)]
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("NAME=a b\n".encode("utf-16"), "a b"),  # PowerShell's >
        ("NAME='ä€'\n".encode("utf-16"), "ä€"),
        (b"\xfe\xff" + "NAME=x\r\n".encode("utf-16-be"), "x"),
        ("NAME=ä\n".encode("utf-8-sig"), "ä"),
        (b"OTHER=1\r\nNAME=${OTHER}2\r\n", "12"),
        (b"export NAME=x # said\n", "x"),
        (b"", "None"),
        (b"NAME\n", "None"),
    ],
)
def test_an_env_file_is_read_as_people_have_it(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    done = taken(tmp_path / ".env")
    assert (done.returncode, done.stdout.strip()) == (0, value), done.stderr


def test_what_the_shell_has_set_counts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NAME=file\n")
    assert taken(tmp_path / ".env", NAME="shell").stdout == "shell\n"
    assert taken(tmp_path / "none").stdout == "None\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("A=1\nNAME=ä\n".encode("cp1252"), ".env:2: is not UTF-8; save the file in UTF-8"),
        (b"A=1\n\nNAME=a\0b\n", ".env:3: holds a NUL character"),
        ("NAME=x".encode("utf-16-le"), ".env:1: holds a NUL character"),
        (b"'a=b'=2\n", ".env: a line cannot be made a variable"),
        (b"\xff\xfeN", ".env:1: is not UTF-8"),
    ],
)
def test_an_env_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    done = taken(tmp_path / ".env")
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_an_env_file_that_is_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert taken(tmp_path / ".env").stderr.endswith(
        ".env: cannot be read (Is a directory); make it a file that you may read\n"
    )


PRINT = """
import sys
from pathlib import Path
from ontopic.commands import shell
shell.take_over(Path("none"))
print("\\u2013 \\u2026 \\ud800")
print("\\u4f60", file=sys.stderr)
sys.exit(0 if sys.stdin.read() == "" else 1)
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "no_SUCH.locale"},
    ],
    ids=lambda variables: "-".join(variables.values()),
)
def test_a_terminal_that_lacks_a_character_gets_another(variables: dict[str, str]) -> None:
    command = [sys.executable, "-c", PRINT]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_file_that_is_opened_later(tmp_path: Path, closed: str) -> None:
    script = PRINT.replace("sys.exit(", f"Path({str(tmp_path / 'kept')!r}).open('w').flush()\nsys.exit(")
    done = subprocess.run(
        ["/bin/bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, (tmp_path / "kept").read_bytes()) == (0, b""), done.stderr


ENDED = """
import sys, time
from pathlib import Path
from ontopic.commands import shell
shell.take_over(Path("none"))
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("ended what was begun")
sys.exit(shell.exit_code(0))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_as_ctrl_c_does(number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-c", ENDED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == "ended what was begun\n"
    assert process.returncode == code


def test_a_signal_that_nohup_has_ignored_stays_so() -> None:
    command = ["/usr/bin/env", "nohup", sys.executable, "-c", ENDED.replace("time.sleep(60)", "time.sleep(2)")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
    assert process.returncode == 0
