"""CPU time of the commands that people give all day, on a state folder as a release before left it.

    python benchmarks/commands.py [--times 5]

Each command runs in a process of its own, after one run that warms the disk's cache; printed is the median of user and
system time, with the time of the bare interpreter beside it.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "tests" / "data" / "state-0.1.tar.gz"
WANTED_S = 1.0
COMMANDS = (
    ("--help",),
    ("status",),
    ("keys", "list"),
    ("alerts",),
    ("traffic",),
    ("promote", "2", "--why", "measured"),
    ("rollback", "--why", "measured"),
)


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=os.environ | {"COLUMNS": "100"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    bare = statistics.median(cpu_seconds([sys.executable, "-c", "pass"]) for _ in range(times))
    print(f"{'python -c pass':<32}{bare:6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(STATE, folder)
        state = ["--state", folder]
        measured: dict[str, list[float]] = {}
        for turn in range(times + 1):  # promote and rollback undo each other
            for arguments in COMMANDS:
                at = [] if arguments == ("--help",) else state
                seconds = cpu_seconds([sys.executable, "run.py", *arguments, *at])
                if turn:
                    measured.setdefault(" ".join(arguments[:2]), []).append(seconds)
    for name, seconds in measured.items():
        median = statistics.median(seconds)
        print(f"run.py {name:<25}{median:6.2f} s  {'' if median < WANTED_S else f'over {WANTED_S:g} s'}")


if __name__ == "__main__":
    main()
