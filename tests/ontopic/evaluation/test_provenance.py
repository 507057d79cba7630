"""With which code something was decided."""

from __future__ import annotations

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import ontopic
from ontopic.evaluation.provenance import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the package would be, in a folder of its own."""
    (tmp_path / "ontopic").mkdir()
    monkeypatch.setattr(ontopic, "__file__", str(tmp_path / "ontopic" / "__init__.py"))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True, text=True)  # noqa: S607
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_and_whether_files_differ_from_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(package, "init", "-q")
    (package / "ontopic" / "__init__.py").touch()
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    found = provenance()
    monkeypatch.delenv("GIT_DIR")
    assert (found.commit, found.changed) == (git(package, "rev-parse", "HEAD"), False)
    (package / "ontopic" / "__init__.py").write_text("changed")
    assert provenance().changed


def test_without_git_there_is_the_release(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (provenance().commit, provenance().changed) == ("", False)
    (package / ".git").mkdir()  # not a repository
    assert provenance().commit == ""
    monkeypatch.setenv("PATH", "/nowhere")
    found = provenance()
    assert (found.commit, found.release) == ("", metadata.version("ontopic"))
    assert {"torch", "zenml", "mlflow", "trl"} <= set(found.packages)
