"""ZenML's own dashboard on the stack that is set up in the state folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT

from ontopic.commands.page_server import running
from ontopic.commands.tool_pages import tools_of
from ontopic.state.workspace import open_workspace

OPEN = """
import sys
from pathlib import Path
from ontopic.state.workspace import open_workspace
from pipelines.stack import open_stack
print(open_stack(open_workspace(Path(sys.argv[1])))[0])
"""


def opened(folder: Path) -> str:
    """The stack that is opened in a state folder, by a process of its own."""
    script = folder / "opens.py"  # ZenML looks for the sources around the file that is run
    script.write_text(OPEN)
    command = [sys.executable, str(script), str(folder / "state")]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def asked(url: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_it_shows_the_stack_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """ZenML takes some ten seconds to import, three times."""
    assert opened(tmp_path) == "ontopic"
    configuration = tmp_path / "state" / "zenml" / "config.yaml"
    before = configuration.read_text()
    *_, zenml = tools_of(open_workspace(tmp_path / "state"), "ontopic-banking")
    assert zenml.server, zenml.said
    with running([zenml.server]) as (server,):
        while not server.is_ready():
            time.sleep(0.1)
        base = f"http://127.0.0.1:{zenml.server.port}"
        assert [each["name"] for each in asked(f"{base}/api/v1/stacks?name=ontopic")["items"]] == ["ontopic"]
        user = asked(f"{base}/api/v1/current-user")
        assert user["body"]["email_opted_in"] is False  # else it begins with questions for its makers
        assert user["metadata"]["user_metadata"]["finished_onboarding_survey"] is True
        assert asked(f"{base}/api/v1/info")["analytics_enabled"] is False
    assert configuration.read_text() == before
    assert opened(tmp_path) == "ontopic"
