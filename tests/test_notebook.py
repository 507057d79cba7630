"""The tutorial's notebook: it uses what is public, shows a run without an error, and runs."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import nbformat
import pytest
from loopback import ROOT
from loops import LENIENT, new_state, run, write_config
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "tutorial" / "tutorial.ipynb"
MODULES = {"ontopic.records", "ontopic.errors"}  # public as a whole, as docs/reference/python.md says


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_imports_only_what_is_public(notebook: nbformat.NotebookNode) -> None:
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imported = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [
        (str(node.module), each.name)
        for node in imported
        for each in node.names
        if str(node.module).startswith("ontopic")
    ]
    assert len(ours) > 10
    hidden = [(of, name) for of, name in ours if of not in MODULES and name not in importlib.import_module(of).__all__]
    assert hidden == []


def test_what_it_shows_is_of_one_whole_run(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in shown} == {"stream"} and {output.name for output in shown} == {"stdout"}
    assert not any("/" + folder in output.text for output in shown for folder in ("home/", "tmp/", "root/"))


@pytest.mark.slow
def test_it_runs_on_a_state_folder_that_the_loop_left(
    tmp_path: Path, model_folder: Path, notebook: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state = write_config(tmp_path / "config", LENIENT), new_state(tmp_path, model_folder)
    done = run(state, config=config)
    assert done.code == 0, done.err
    assert "Version 2 is the champion now." in done.out
    monkeypatch.setenv("ONTOPIC_STATE", str(state))
    monkeypatch.setenv("ONTOPIC_CONFIG", str(config))
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    assert notebook.cells[-1].outputs[0].text == "chain whole: True\nfiles changed: none\n"
