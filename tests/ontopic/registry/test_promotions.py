"""The registry: the champion's alias, who moved it and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from ontopic.errors import UserError
from ontopic.registry import versions as registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace

NAME = "ontopic-test"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three versions and no champion."""
    workspace = open_workspace(tmp_path_factory.mktemp("registry"))
    open_tracking(workspace, NAME)
    for number in "123":
        folder = workspace.root / f"model{number}"
        folder.mkdir()
        (folder / "weights").write_text(number)
        with mlflow.start_run() as run:
            registry.register(
                NAME, folder, digest=f"digest{number}", run_id=run.info.run_id, state=workspace.root, tags={}
            )
    return workspace.root


def test_who_when_and_why_stay_on_the_registry(state: Path) -> None:
    assert registry.champion_version(NAME) == ""
    assert registry.champion_version("ontopic-none") == ""
    assert registry.promotions(NAME) == registry.promotions("ontopic-none") == []
    with pytest.raises(UserError, match="no champion before version none"):
        registry.roll_back(NAME, "ann", why="to see")

    registry.ensure_champion(NAME, "1")
    registry.ensure_champion(NAME, "2")
    registry.promote(NAME, "2", by="the loop", why="passed the gate", tags={"ontopic.gate": "passed"})
    third = registry.promote(NAME, "3", by="ann", why="é\n<b>" + "x" * 5000)
    assert (third.before, len(third.why)) == ("2", 1000)
    assert registry.find(NAME, "champion", state=state).version == "3"

    back = registry.roll_back(NAME, "the canary", why="it leaks")
    assert (back.version, back.before, back.rollback) == ("2", "3", True)
    assert registry.roll_back(NAME, "bob", why="that one too").version == "1"
    with pytest.raises(UserError, match="no champion before version 1"):
        registry.roll_back(NAME, "bob", why="once more")
    # Version 2 takes its place again: from there the way back is to 1, however it was left before.
    registry.promote(NAME, "2", by="ann", why="mended")
    assert registry.predecessor(NAME, "2") == "1"

    found = registry.promotions(NAME)
    assert [(each.before, each.version, each.by) for each in found] == [
        ("", "1", "the loop"),
        ("1", "2", "the loop"),
        ("2", "3", "ann"),
        ("3", "2", "the canary"),
        ("2", "1", "bob"),
        ("1", "2", "ann"),
    ]
    assert found[2] == third
    assert [each.at for each in found] == sorted(each.at for each in found)
    tags = mlflow.MlflowClient().get_registered_model(NAME).tags
    assert sum("that one too" in json.loads(value)["why"] for value in tags.values()) == 1


@pytest.mark.parametrize(
    ("version", "said"), [("9", "has no version '9'"), ("x'; --", "has no version"), ("", "no ver")]
)
def test_a_version_that_is_none_is_told(state: Path, version: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        registry.promote(NAME, version, by="ann", why="")


def test_the_champion_is_not_promoted_again(state: Path) -> None:
    with pytest.raises(UserError, match="is the champion already"):
        registry.promote(NAME, registry.champion_version(NAME), by="ann", why="", at=NOON)
    assert all(each.at != NOON for each in registry.promotions(NAME))
