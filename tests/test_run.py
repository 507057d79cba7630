"""The command line: what its quick commands import, and that they read a state folder of the version before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
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
