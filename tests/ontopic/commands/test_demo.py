"""The command ``demo``: the pages of a finished run, before any training."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from loopback import ROOT

READY_S = 30.0


@pytest.mark.slow  # the servers of three tools
def test_everything_is_open_within_half_a_minute_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "run.py", "demo", "--state", str(tmp_path / "demo")]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            link = next(found for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
            opener = build_opener(ProxyHandler({}))
            while True:
                try:
                    with opener.open(link[0], timeout=READY_S) as page:
                        assert page.status == 200
                    break
                except OSError:
                    assert time.monotonic() - began < READY_S
            assert time.monotonic() - began < READY_S
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
