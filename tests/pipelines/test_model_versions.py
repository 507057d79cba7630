"""ZenML's models beside the versions of MLflow's registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT
from registries import NAME, made_registry

# Two runs of a pipeline whose step makes version 2; between them the alias moves.
SCRIPT = """
import json, sys
from pathlib import Path
from typing import Annotated
from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import open_workspace
from pipelines.stack import open_stack

_, workspace = open_stack(open_workspace(Path(sys.argv[1])))
from zenml import pipeline, step
from zenml.client import Client
from pipelines.model_versions import link_versions

@step(enable_cache=False)
def made() -> Annotated[str, "challenger"]:
    return "2"

@pipeline(name="improve")
def improve() -> None:
    made()

def stages() -> dict[str, str]:
    run = Client().get_pipeline_run(improve().id)
    for _ in range(2):  # the second finds all of it there
        link_versions(run, sys.argv[2], workspace=workspace)
    return {each.name: each.stage for each in Client().list_model_versions(model=sys.argv[2]).items}

registry, found = open_registry(workspace, sys.argv[2]), {}
registry.challenge("2")
found["before"] = stages()
registry.promote("2", by="test", why="passed the gate")
found["after"] = stages()
versions = {each.name: each.get_hydrated_version() for each in Client().list_model_versions(model=sys.argv[2]).items}
found["metadata"] = {name: dict(each.run_metadata) for name, each in versions.items()}
found["runs"] = {
    name: Client().list_model_version_pipeline_run_links(model_version_id=each.id).total
    for name, each in versions.items()
}
Path(sys.argv[3]).write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_zenmls_versions_are_the_registrys_and_follow_its_aliases(tmp_path: Path) -> None:
    """ZenML takes some ten seconds to import."""
    registry = made_registry(tmp_path / "state", "12")
    registry.promote("1", by="test", why="the base model")
    found = _found(tmp_path)
    assert found["before"] == {"v1": "production", "v2": "staging"}
    assert found["after"] == {"v1": "archived", "v2": "production"}
    assert found["metadata"]["v2"] == {"mlflow": f"models:/{NAME}/2", "sha256": "digest of 2"}
    assert found["runs"] == {"v1": 0, "v2": 2}


def _found(folder: Path) -> Any:
    (folder / "runs.py").write_text(SCRIPT)  # ZenML looks for the sources around the file that is run
    command = [sys.executable, str(folder / "runs.py"), str(folder / "state"), NAME, str(folder / "found.json")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())
