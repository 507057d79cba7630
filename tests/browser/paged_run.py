"""Makes a run in ZenML whose one step returns a value with a page: ``paged_run.py STATE PAGE SAID``; prints its id.

A file of its own, as ZenML finds a step again by the file that defines it, under the root of the sources.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel

from ontopic.state.workspace import open_workspace
from pipelines.stack import open_stack

open_stack(open_workspace(Path(sys.argv[1])))  # before ZenML opens the user's

from zenml import pipeline, step  # noqa: E402

from steps.pages import PAGES  # noqa: E402


class Paged(BaseModel):
    """What a step returns."""

    report: Path
    said: str


@step(enable_cache=False, output_materializers=PAGES)
def shows_page() -> Annotated[Paged, "decision"]:
    """Returns what the arguments name."""
    return Paged(report=Path(sys.argv[2]), said=Path(sys.argv[3]).read_text(encoding="utf-8"))


@pipeline(name="improve")
def improve() -> None:
    """One step."""
    shows_page()


if __name__ == "__main__":
    run = improve()
    assert run is not None
    print(f"run {run.id}")
