"""A service ends with the process that launched it; ``test_process.py`` holds it of the whole service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from loopback import ROOT

DEAD = "4194305"  # above the largest process id that Linux gives


def run(code: str, launcher: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ONTOPIC_LAUNCHER_PID": launcher}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


def test_importing_the_service_starts_no_thread_and_loads_no_model_library() -> None:
    code = (
        "import threading, serving.service, sys\n"
        "print(*(thread.name for thread in threading.enumerate()), {'torch', 'transformers'} & set(sys.modules))"
    )
    done = run(code, DEAD)
    assert (done.returncode, done.stdout) == (0, "MainThread set()\n"), done.stderr


def test_a_process_ends_once_its_launcher_is_gone() -> None:
    code = "import time\nfrom serving.launcher import end_with_launcher\nend_with_launcher()\ntime.sleep(30)"
    assert run(code, DEAD).returncode == -signal.SIGTERM


def test_a_process_goes_on_while_its_launcher_lives_or_has_none() -> None:
    code = "import time\nfrom serving.launcher import end_with_launcher\nend_with_launcher()\ntime.sleep(1.5)"
    assert run(code, str(os.getpid())).returncode == 0
    assert run(code, "").returncode == 0
