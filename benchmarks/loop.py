"""Where the loop's time goes: each stage with ZenML's and the imports' part, peak memory, the state folder's size.

    python benchmarks/loop.py [--config configs/local.yaml] [--runs 3] [--state FOLDER] [--cache FOLDER]

The whole loop in a new state folder, each run in a process of its own: the first trains and promotes, the second asks
the new champion its questions, the third finds nothing changed. Measured from inside, by hooks on ZenML's steps and on
``import``; memory is the sum of the resident sets of the process and its children, so shared pages count twice. Without
``--cache`` the weights are converted too, as on a new machine.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from ontopic.state.workspace import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = "outside of steps"
_SAMPLED_S = 0.25


class Stage(BaseModel):
    """One stage of a run.

    Attributes:
        begin: seconds since the epoch.
        seconds: from its start to its end, what ZenML does before and after included; 0 where it came from the cache.
        inside: of them in the step's own function, and ``imports`` of those in its imports.
    """

    name: str
    begin: float
    seconds: float = 0.0
    inside: float = 0.0
    imports: float = 0.0


class Run(BaseModel):
    """One run of the loop, with bytes of memory at times since the epoch."""

    seconds: float
    imports_outside: float
    pipelines: float
    stages: list[Stage]
    memory: list[tuple[float, int]]


class Hooks:
    """What is measured inside the process of the loop."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.imports_outside = self.pipelines = 0.0
        self._depth, self._current = 0, Stage(name=OUTSIDE, begin=0.0)
        self._outside, self._thread = self._current, threading.get_ident()

    def install(self) -> None:
        """Wrap ``import`` now, and ZenML's steps and pipelines once they are imported."""
        os.environ |= ENVIRONMENT  # which ZenML and others read as they are imported
        imported = builtins.__import__

        def timed_import(*args: Any, **kwargs: Any) -> Any:
            if self._depth or threading.get_ident() != self._thread:
                return imported(*args, **kwargs)
            self._depth, begin = 1, time.perf_counter()
            try:
                return imported(*args, **kwargs)
            finally:
                self._depth = 0
                self._current.imports += time.perf_counter() - begin

        builtins.__import__ = timed_import
        from zenml.orchestrators.base_orchestrator import BaseOrchestrator
        from zenml.pipelines.pipeline_definition import Pipeline
        from zenml.steps.base_step import BaseStep

        self._wrap(BaseOrchestrator, "run_step", self._whole_step)
        self._wrap(BaseStep, "call_entrypoint", self._inside_step)
        self._wrap(Pipeline, "__call__", self._pipeline)

    def _wrap(self, owner: type, name: str, around: Callable[..., Any]) -> None:
        function = getattr(owner, name)

        def wrapped(each: Any, *args: Any, **kwargs: Any) -> Any:
            with around(each, *args, **kwargs):
                return function(each, *args, **kwargs)

        setattr(owner, name, wrapped)

    @contextmanager
    def _whole_step(self, _: Any, step: Any) -> Iterator[None]:
        stage = Stage(name=step.spec.invocation_id, begin=time.time())
        self.stages.append(stage)
        before, self._current, begin = self._current, stage, time.perf_counter()
        try:
            yield
        finally:
            self._current, stage.seconds = before, time.perf_counter() - begin

    @contextmanager
    def _inside_step(self, *_: Any, **__: Any) -> Iterator[None]:
        self._current.imports, begin = 0.0, time.perf_counter()  # what ZenML imports is ZenML's
        try:
            yield
        finally:
            self._current.inside = time.perf_counter() - begin

    @contextmanager
    def _pipeline(self, *_: Any, **__: Any) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.pipelines += time.perf_counter() - begin

    def found(self) -> str:
        """What was measured, as JSON."""
        outside = self._outside.imports
        stages = [stage.model_dump() for stage in self.stages]
        return json.dumps({"stages": stages, "imports_outside": outside, "pipelines": self.pipelines})


def run_measured(arguments: list[str], out: Path) -> None:
    """Run the command line in this process, and write what was measured."""
    hooks = Hooks()
    hooks.install()
    sys.argv = ["run.py", *arguments]
    try:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    finally:
        out.write_text(hooks.found(), encoding="utf-8")


def one_run(config: Path, state: Path, out: Path) -> Run:
    """Run the loop once, in a process whose memory is looked at meanwhile."""
    command = [sys.executable, __file__, "--inside", str(out), "--config", str(config), "--state", str(state)]
    begin, memory = time.perf_counter(), []
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None:
        memory.append((time.time(), resident(psutil.Process(process.pid))))
        time.sleep(_SAMPLED_S)
    seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(process.returncode)
    return Run(seconds=seconds, memory=memory, **json.loads(out.read_text(encoding="utf-8")))


def resident(process: psutil.Process) -> int:
    """Bytes that a process and what it started have in memory."""
    total = 0
    try:
        for each in (process, *process.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def size(folder: Path) -> int:
    """Bytes of a folder's files; what has several names in it counts once, as `du` counts it."""
    files = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for stat in map(Path.lstat, folder.rglob("*"))}
    return sum(files.values())


def table(run: Run, title: str) -> Table:
    """One run's stages."""
    shown = Table(title=title)
    for name in ("stage", "seconds", "in the step", "its imports", "ZenML's", "peak, GB"):
        shown.add_column(name, justify="left" if name == "stage" else "right")
    for stage in run.stages:
        ran, own = stage.inside > 0, stage.seconds - stage.inside
        peak = max((used for at, used in run.memory if 0 <= at - stage.begin <= stage.seconds), default=0)
        cells = [stage.inside - stage.imports, stage.imports, own] if ran else [0.0, 0.0, own]
        shown.add_row(stage.name, f"{stage.seconds:.1f}", *[f"{each:.1f}" for each in cells], f"{peak / 1e9:.1f}")
    stages = sum(stage.seconds for stage in run.stages)
    between = run.pipelines - stages
    shown.add_row("pipelines, before and after their steps", f"{between:.1f}", "", "", f"{between:.1f}", "")
    rest = run.seconds - run.pipelines
    peak = max(used for _, used in run.memory)
    shown.add_row("opening, judging what to do, last screen", f"{rest:.1f}", "", f"{run.imports_outside:.1f}", "", "")
    imports = run.imports_outside + sum(stage.imports for stage in run.stages)
    zenml = between + sum(stage.seconds - stage.inside for stage in run.stages)
    shown.add_row("all", f"{run.seconds:.1f}", "", f"{imports:.1f}", f"{zenml:.1f}", f"{peak / 1e9:.1f}")
    return shown


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "local.yaml")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--state", type=Path, help="kept afterwards; a temporary folder by default")
    parser.add_argument("--cache", type=Path, help="where converted weights are; an empty folder by default")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        run_measured(["--config", str(options.config), "--state", str(options.state)], options.inside)
        return
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        state = options.state or Path(folder) / "state"
        os.environ["ONTOPIC_CACHE"] = str((options.cache or Path(folder) / "cache").absolute())
        for number in range(1, options.runs + 1):
            run = one_run(options.config.absolute(), state.absolute(), Path(folder) / "found.json")
            console.print(table(run, f"Run {number} of the loop"))
            console.print(f"the state folder has {size(state) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
