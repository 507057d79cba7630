"""``ask`` where a service runs from the state folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import ROOT
from served import smol

from ontopic.commands.options import Project
from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.state.service_file import read_service
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from serving.ask import ask_champion
from serving.keys import KeyStore
from serving.process import ServedModel


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    settings = load_settings(ROOT / "configs" / "local.yaml")
    state = tmp_path_factory.mktemp("state")
    workspace = Workspace(root=state, mlflow_uri=f"sqlite:///{state}/mlflow.db")
    return Project(settings, load_policy(settings.policy), workspace)


@pytest.fixture(scope="module")
def served(project: Project, model_folder: Path) -> Iterator[ServedModel]:
    name, workspace = project.policy.registered_model, project.workspace
    with ServedModel(smol(model_folder, workspace.root, model_name=name, keys=workspace.keys)) as model:
        yield model


def test_the_service_answers_and_its_key_is_taken_back(project: Project, served: ServedModel) -> None:
    answered = ask_champion(project, "How do I freeze my card?")
    assert answered.version == "v7"
    with TrafficStore(project.workspace.traffic) as traffic:
        (record,) = traffic.records()
    assert (record.question, record.answer) == ("How do I freeze my card?", answered.text)
    entry = read_service(project.workspace.service)
    assert entry and entry.model == record.registered_model == project.policy.registered_model
    assert KeyStore(project.workspace.keys).all() == []


def test_a_service_that_takes_other_keys_is_named(
    project: Project, served: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.ask._KEY_KNOWN_S", 0.0)
    elsewhere = Workspace(root=tmp_path)
    elsewhere.service.write_bytes(project.workspace.service.read_bytes())
    entry = read_service(elsewhere.service)
    assert entry is not None
    with pytest.raises(UserError, match=f"the service on port {entry.port} takes other keys than"):
        ask_champion(Project(project.settings, project.policy, elsewhere), "hello")


def test_a_service_of_another_model_is_not_asked(project: Project, served: ServedModel, tmp_path: Path) -> None:
    other = project.policy.model_copy(update={"name": "gardening"})
    with pytest.raises(UserError, match=r"has no version or alias 'champion'"):  # the model itself is looked for
        ask_champion(Project(project.settings, other, project.workspace), "hello")


def test_an_entry_that_a_killed_service_left_is_not_asked(
    project: Project, served: ServedModel, tmp_path: Path
) -> None:
    left = Workspace(root=tmp_path, mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    entry = read_service(project.workspace.service)
    assert entry is not None
    left.service.write_text(entry.model_copy(update={"create_time": entry.create_time - 60}).model_dump_json())
    with pytest.raises(UserError, match=r"has no version or alias 'champion'"):
        ask_champion(Project(project.settings, project.policy, left), "hello")
