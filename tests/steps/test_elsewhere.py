"""What a step on another machine is given, and what it hands back."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import BaseModel
from zenml.steps import BaseStep

import steps
from ontopic.data.labelled import Question
from ontopic.data.rows import load_rows, source_sha256
from ontopic.judges.llm.templates import load_template
from ontopic.state import carried_files
from ontopic.state.workspace import Workspace
from steps.elsewhere import BroughtAlong, BroughtAlongMaterializer
from steps.pages import PageMaterializer

PROMPT = "{{fence}}\n{{question}}\n{{answer}}\n{{fence}}"


class Reported(BaseModel):
    report: Path


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Of artifacts, somewhere else; and this machine's state folder."""
    monkeypatch.setattr(carried_files, "_copies", {})
    monkeypatch.setenv(carried_files.STATE, str(tmp_path / "here"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    memory = MemoryFileSystem()
    yield SimpleNamespace(open=memory.open, exists=memory.exists)
    memory.rm("/", recursive=True)


def test_the_users_files_are_opened_by_the_paths_that_they_have_elsewhere(
    store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    questions, prompt = theirs / "questions.jsonl", theirs / "mine.txt"
    questions.write_text('{"question": "why", "in_scope": true}\n')
    prompt.write_text(PROMPT)
    digest = source_sha256(str(questions))
    data = BroughtAlong(mlflow_uri="http://mlflow.bank", files=[questions, prompt])
    artifact = BroughtAlongMaterializer("memory://artifact", artifact_store=store)
    artifact.save(data)
    before = artifact.compute_content_hash(data)
    theirs.rename(tmp_path / "gone")
    workspace = artifact.load(Workspace)
    assert (workspace.root, workspace.mlflow_uri) == (tmp_path / "here", "http://mlflow.bank")
    assert workspace.is_passing and not Workspace(root=tmp_path).is_passing
    assert [row.question for row in load_rows(str(questions), Question).rows] == ["why"]
    assert source_sha256(str(questions)) == digest
    assert load_template(prompt, "single").text == PROMPT
    (tmp_path / "gone").rename(theirs)
    assert artifact.compute_content_hash(data) == before
    prompt.write_text(f"{PROMPT} ")
    assert artifact.compute_content_hash(data) != before  # so the steps run anew


def test_pages_of_another_machine_come_along(store: Any, tmp_path: Path) -> None:
    page = tmp_path / "there" / "gate.html"
    page.parent.mkdir()
    page.write_text("a gate")
    there = PageMaterializer("memory://decision", artifact_store=store)
    data = Reported(report=page)
    there.save_visualizations(data)
    page.unlink()
    loaded = PageMaterializer("memory://decision", artifact_store=store)._with_pages(data)
    assert loaded.report == tmp_path / "here" / "reports" / "gate.html"
    assert loaded.report.read_text() == "a gate"
    assert PageMaterializer(str(tmp_path), artifact_store=store)._with_pages(data) == data  # it was removed here


def test_each_step_is_given_what_its_machine_lacks() -> None:
    found = [
        value
        for module in pkgutil.iter_modules(steps.__path__)
        for value in vars(importlib.import_module(f"steps.{module.name}")).values()
        if isinstance(value, BaseStep)
    ]
    assert len({step.name for step in found}) >= 13
    assert [step.name for step in found if "workspace" not in inspect.signature(step.entrypoint).parameters] == []
