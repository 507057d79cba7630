"""Another machine, as far as one machine can play it: another user's processes, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from loopback import ROOT

_USER = "nobody"


class SecondMachine:
    """Runs Python as another user, whose environment and home hold nothing of this one's.

    Args:
        home: made for them, and the folder in which all of theirs runs.
        variables: of their environment, such as MLflow's tracking URI.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        home.mkdir(parents=True)
        self._as: list[str] = []
        if os.geteuid() == 0:
            runuser = shutil.which("runuser")
            if runuser is None:
                pytest.skip("there is no runuser on the PATH, by which root plays another user")
            self._as = [runuser, "-u", _USER, "--"]  # it may lie where the other user's PATH does not lead
            shutil.chown(home, _USER)
        self.environment = {
            "PATH": f"{home / 'bin'}:/usr/bin:/bin",
            "HOME": str(home),
            "PYTHONPATH": f"{ROOT}:{sysconfig.get_paths()['purelib']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        self.python = self._python()
        self._add_command("uvicorn")  # by which MLflow serves, and which only a user's own Python can run

    def run(self, *arguments: str) -> str:
        """What their Python prints."""
        command = [*self._as, self.python, *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    def start(self, log: Path, *arguments: str, folder: Path | None = None) -> psutil.Popen:
        """Start their Python; it writes to ``log``, which is ours."""
        command = [*self._as, self.python, *arguments]
        with log.open("wb") as output:
            return psutil.Popen(command, env=self.environment, cwd=folder or self.home, stdout=output, stderr=output)

    def may_read(self, path: Path) -> bool:
        """Whether they can see into a folder of ours."""
        test = ["test", "-r", str(path)]
        return subprocess.run([*self._as, *test], check=False).returncode == 0

    def _python(self) -> str:
        """One of this version that the other user may execute."""
        names = (sys.executable, shutil.which(f"python3.{sys.version_info[1]}", path="/usr/local/bin:/usr/bin"))
        for name in filter(None, names):
            found = subprocess.run(
                [*self._as, name, "-c", "import torch, ontopic"], env=self.environment, check=False, capture_output=True
            )
            if found.returncode == 0:
                return name
        pytest.skip(f"user {_USER} may execute no Python of this version, or not read these packages")

    def _add_command(self, name: str) -> None:
        command = self.home / "bin" / name
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {self.python} -m {name} "$@"\n')
        command.chmod(0o755)


def end(process: psutil.Popen, patience_s: float = 20) -> None:
    """End a process and its children."""
    family: Sequence[psutil.Process] = [process, *process.children(recursive=True)]
    for each in family:
        each.terminate()
    for left in psutil.wait_procs(family, timeout=patience_s)[1]:
        left.kill()
