"""Step caches: a step runs anew once a source of a package that it uses has changed, and only then."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ROOT

from steps.caching import _imported, sources_behind

PACKAGES = sorted(path.name for path in (ROOT / "ontopic").iterdir() if (path / "__init__.py").is_file())
SCRIPT = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
os.environ["ZENML_CONFIG_PATH"] = str(Path("zenml").resolve())
from ontopic.state.workspace import open_workspace
open_workspace(Path("state"))
from zenml import pipeline, step
from zenml.client import Client
from steps.caching import depends_on_imports

@step(cache_policy=depends_on_imports("uses_judges.py"))
def uses_judges() -> int:
    return 1

@step(cache_policy=depends_on_imports("uses_statistics.py"))
def uses_statistics() -> int:
    return 1

@pipeline(enable_cache=True)
def both() -> None:
    uses_judges()
    uses_statistics()

for change in (None, None, "ontopic/judges/judge.py", "ontopic/statistics/rates.py"):
    if change:
        with Path(change).open("a") as file:
            file.write("# a changed rule\\n")
        from steps import caching
        caching._imported.cache_clear()
    run = both()
    steps = Client().get_pipeline_run(run.id).steps
    print("ran:", sorted(name for name, step in steps.items() if step.status.value != "cached"))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with two files that stand for those of steps."""
    root = tmp_path_factory.mktemp("repository")
    for package in ("ontopic", "serving", "steps"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    (root / "uses_judges.py").write_text("from ontopic.judges.panel import PanelJudge\n")
    (root / "uses_statistics.py").write_text("from ontopic.statistics.rates import rate\n")
    return root


@pytest.mark.parametrize("package", PACKAGES)
def test_every_source_of_a_package_counts(package: str, copy: Path) -> None:
    file = copy / f"uses_{package}_here.py"
    file.write_text(f"from ontopic.{package} import something\n")
    here = {path.relative_to(copy).as_posix() for path in (copy / "ontopic" / package).rglob("*.py")}
    assert here and here <= set(sources_behind(file, copy))


def test_what_a_package_imports_counts_too_and_what_it_does_not_import_does_not(copy: Path) -> None:
    found = sources_behind(copy / "uses_judges.py", copy)
    assert "ontopic/judges/judge.py" in found  # the rule of what passes
    assert "ontopic/statistics/rates.py" in found
    assert not any(path.startswith(("ontopic/watch/", "ontopic/commands/")) for path in found)
    assert not any(path.startswith("ontopic/judges/") for path in sources_behind(copy / "uses_statistics.py", copy))


def test_each_step_follows_its_imports() -> None:
    for step in sorted((ROOT / "steps").glob("*.py")):
        text = step.read_text()
        if "@step" in text and "enable_cache=False" not in text:
            assert "cache_policy=depends_on_imports(__file__" in text, step.name


def test_a_step_runs_anew_when_a_source_behind_it_changes_and_else_comes_from_the_cache(copy: Path) -> None:
    script = copy / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML", "MLFLOW", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("ran:")] == [
        "ran: ['uses_judges', 'uses_statistics']",
        "ran: []",
        "ran: ['uses_judges']",
        "ran: ['uses_judges', 'uses_statistics']",
    ]


def test_imports_are_those_that_python_sees() -> None:
    for file in (path for package in ("ontopic", "serving", "steps") for path in (ROOT / package).rglob("*.py")):
        modules: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                modules.update(f"{node.module}.{alias.name}" for alias in node.names)
        ours = {tuple(name.split(".")[:2]) for name in modules if name.startswith(("ontopic.", "serving.", "steps."))}
        seen = {path.relative_to(ROOT).with_suffix("").parts for path in _imported(file, ROOT)}
        assert seen == ours, file
