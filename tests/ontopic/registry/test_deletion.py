"""A version that nothing needs any more is deleted with its weights; one that is needed says for what."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest
from loopback import ROOT
from registries import NAME, made_registry
from typer.testing import CliRunner, Result

from ontopic.config.watch_settings import PromotionSettings
from ontopic.errors import UserError
from ontopic.registry import versions
from ontopic.registry.approval import Terms
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.registry.deletion import delete
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.record_check import check_record
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import BASE_VERSION, MADE_FROM
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace

BANK = "ontopic-banking"


def lineage(root: Path, tags: dict[str, dict[str, str]]) -> ModelRegistry:
    """Versions 1 to 5, of which 1 and then 4 were promoted."""
    registry = made_registry(root, "12345")
    for version in "12345":
        registry.tag(version, {KIND: "orpo-lora", BASE_VERSION: "1", MADE_FROM: "x"} | tags.get(version, {}))
    for version in "14":
        registry.promote(version, by="ann", why="better")
    return registry


def refused(root: Path, which: str) -> str:
    workspace = Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")
    with pytest.raises(UserError) as told:
        delete(NAME, which, by="ann", why="room", settings=PromotionSettings(), workspace=workspace)
    return str(told.value)


@pytest.mark.parametrize(
    ("which", "tags", "said"),
    [
        ("4", {}, "version 4 of 'ontopic-test' is not deleted: it is the champion; promote another one first"),
        ("champion", {}, "it is the champion"),
        ("1", {}, "a rollback from version 4, the champion, goes back to it"),
        ("2", {"1": {KIND: OF_BASE}, "2": {KIND: OF_BASE}}, "trainings start from it (training.start: base)"),
        ("2", {"3": {BASE_VERSION: "2", MADE_FROM: ""}}, "waits for approval; `python run.py reject 2"),
        ("9", {}, "'ontopic-test' has no version or alias '9'; its versions are: 1, 2, 3, 4, 5"),
    ],
    ids=["champion", "champion's alias", "its predecessor", "the base", "waits", "unknown"],
)
def test_what_is_needed_stays(tmp_path: Path, which: str, tags: dict[str, dict[str, str]], said: str) -> None:
    registry = lineage(tmp_path, tags)
    if "approval" in said:
        terms = Terms(
            approval="one",
            until=datetime.now(UTC) + timedelta(days=1),
            champion="4",
            gate_sha256="",
            weights_sha256="",
            policy_sha256="",
            trained_by=(),
        )
        registry.enter("waiting", "2", by="ann", why="", facts=terms.model_dump(mode="json"))
    before = (registry.versions(), registry.record.entries())
    assert said.replace("`", "") in refused(tmp_path, which).replace("`", "")
    assert (registry.versions(), registry.record.entries()) == before


def test_the_base_of_an_adapter_of_an_earlier_release_stays(tmp_path: Path) -> None:
    registry = made_registry(tmp_path, "123")
    registry.tag("3", {KIND: "orpo-lora", BASE_VERSION: "2"})
    registry.tag("2", {KIND: "orpo-lora", BASE_VERSION: "1"})
    assert "version 3 is of an earlier release, and an adapter of it" in refused(tmp_path, "2")


@pytest.mark.parametrize(
    ("kinds", "base"),
    [
        (["base", "orpo-lora", "orpo-lora"], "1"),
        (["orpo-lora", "orpo-lora", "base"], "3"),  # deleted, and registered again by the next loop
        (["base", "orpo-lora", "base"], "3"),  # another model was configured since
        (["", "", ""], "1"),  # others filled this registry
        (["", "orpo-lora", "orpo-lora"], "1"),
    ],
)
def test_the_base_is_the_base_model_that_was_registered_last(tmp_path: Path, kinds: list[str], base: str) -> None:
    registry = made_registry(tmp_path, "123")
    for version, kind in zip("123", kinds, strict=True):
        if kind:
            registry.tag(version, {KIND: kind})
    assert registry.version("base") == base


def test_a_base_that_was_deleted_is_no_tuned_model_instead(tmp_path: Path) -> None:
    registry = made_registry(tmp_path, "23")
    for version in "23":
        registry.tag(version, {KIND: "orpo-lora"})
    with pytest.raises(UserError, match=r"the base model of 'ontopic-test' was deleted; run `python run.py`, which"):
        registry.version("base")


Command = Callable[..., Result]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A real registry: 1 the base, 2 to 4 tuned, of which 2 was and 3 is the champion; 4 is a challenger."""
    folder = tmp_path_factory.mktemp("real") / "state"
    shutil.unpack_archive(ROOT / "tests" / "data" / "state-0.1.tar.gz", folder)
    workspace = open_workspace(folder)
    open_tracking(workspace, "x")  # its own experiment names another folder
    for number in (3, 4):
        made = workspace.root / f"made-{number}"
        made.mkdir()
        (made / "weights").write_text(f"weights of {number}")
        with mlflow.start_run() as run:
            mlflow.log_text("what it learned from", "preferences.json")
            versions.register(
                BANK,
                made,
                workspace=workspace,
                digest=folder_sha256(made),
                run_id=run.info.run_id,
                tags={KIND: "orpo-lora", MADE_FROM: f"adapter {number}"},
                challenger=True,
            )
    registry = open_registry(workspace, BANK)
    for version in "23":
        registry.promote(version, by="ann", why="better")
    registry.challenge("4")
    return workspace


def test_a_deleted_version_leaves_no_weights_and_stays_on_record(workspace: Workspace) -> None:
    import run

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(run.app, [*arguments, "--state", str(workspace.root)])

    registry = open_registry(workspace, BANK)
    assert len(list(workspace.artifacts.glob("*/artifacts/model/weights"))) == 2
    done = command("delete", "challenger", "--why", "too old", "--by", "Bea")
    assert (done.exit_code, done.stdout) == (0, "version 4 is deleted by Bea\n"), done.exception
    assert registry.versions() == ["1", "2", "3"]
    assert [path.read_text() for path in workspace.artifacts.glob("*/artifacts/model/weights")] == ["weights of 3"]
    assert not (workspace.registry / BANK / "4").exists()
    assert len(list(workspace.artifacts.glob("*/artifacts/preferences.json"))) == 2
    entry = registry.record.entries(BANK)[-1]
    assert (entry.kind, entry.version, entry.by, entry.why) == ("deletion", "4", "Bea", "too old")
    assert registry.off_record() == ""
    assert check_record(registry.record, workspace=workspace, registries=[registry]).faults == []
    again = command("delete", "4", "--why", "too old")
    assert isinstance(again.exception, UserError) and "has no version or alias '4'" in str(again.exception)
    rolled = command("rollback", "--why", "worse")
    assert rolled.exit_code == 0, rolled.exception
    assert versions.find(BANK, "3", workspace=workspace).digest


def test_a_deletion_that_was_killed_goes_on(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = open_registry(workspace, BANK)
    registry.enter("deletion", "3", by="Bea", why="too old", facts={})
    shutil.rmtree(next(workspace.artifacts.glob("*/artifacts/model")))  # and then it was killed
    of = {"by": "Bea", "why": "too old", "settings": PromotionSettings(), "workspace": workspace}
    left = delete(BANK, "3", **of)  # type: ignore[arg-type]
    assert (left, registry.versions()) == ("", ["1", "2"])
    assert [entry.version for entry in registry.record.entries(BANK) if entry.kind == "deletion"] == ["4", "3"]
