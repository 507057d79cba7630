"""With which code and packages something was decided."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import ontopic

_PATIENCE_S = 10
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Provenance(BaseModel):
    """The code that ran.

    Attributes:
        release: of this package; empty where it is not installed.
        commit: of the working copy that it runs from; empty where it runs from none, or git does not say.
        changed: whether files of that working copy differ from the commit.
        packages: the version of each package that this one depends on, to run, and that is installed.
    """

    model_config = ConfigDict(frozen=True)
    release: str
    commit: str
    changed: bool
    python: str
    packages: dict[str, str]


def provenance() -> Provenance:
    """What runs now."""
    root = Path(ontopic.__file__).parents[1]
    commit = _git(root, "rev-parse", "HEAD").strip() if (root / ".git").exists() else ""
    return Provenance(
        release=_version("ontopic"),
        commit=commit,
        changed=bool(commit and _git(root, "status", "--porcelain").strip()),
        python=platform.python_version(),
        packages=_packages(),
    )


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},  # of a hook
        )
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine
        return ""
    return done.stdout if done.returncode == 0 else ""


def _packages() -> dict[str, str]:
    try:
        wanted = metadata.requires("ontopic") or []
    except metadata.PackageNotFoundError:
        return {}
    to_run = [line for line in wanted if 'extra == "dev"' not in line]
    names = sorted({found[0].lower() for line in to_run if (found := _NAME.match(line))})
    return {name: version for name in names if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
