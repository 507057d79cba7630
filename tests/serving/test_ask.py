"""``ask`` where a service runs from the state folder."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from chats import llm_judge
from graders import PASS
from loopback import ROOT, ChatServer, Reply
from served import smol

from ontopic.commands.options import Project
from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.errors import UserError
from ontopic.records import transcript
from ontopic.state.service_file import read_service
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from serving.ask import Champion
from serving.commands import ask
from serving.keys import KeyStore
from serving.process import ServedModel


def asking(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}]


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
    answered = Champion(project).answer(asking("How do I freeze my card?"))
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
        Champion(Project(project.settings, project.policy, elsewhere)).answer(asking("hello"))


def test_a_service_of_another_model_is_not_asked(project: Project, served: ServedModel, tmp_path: Path) -> None:
    other = project.policy.model_copy(update={"name": "gardening"})
    with pytest.raises(UserError, match=r"has no version or alias 'champion'"):  # the model itself is looked for
        Champion(Project(project.settings, other, project.workspace)).answer(asking("hello"))


def test_an_entry_that_a_killed_service_left_is_not_asked(
    project: Project, served: ServedModel, tmp_path: Path
) -> None:
    left = Workspace(root=tmp_path, mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    entry = read_service(project.workspace.service)
    assert entry is not None
    left.service.write_text(entry.model_copy(update={"create_time": entry.create_time - 60}).model_dump_json())
    with pytest.raises(UserError, match=r"has no version or alias 'champion'"):
        Champion(Project(project.settings, project.policy, left)).answer(asking("hello"))


def test_a_chat_goes_on_where_it_was_and_an_empty_line_ends_it(
    project: Project, served: ServedModel, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = llm_judge(chat_server).settings
    chatting = dataclasses.replace(project, settings=project.settings.model_copy(update={"judge": judged}))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    chat_server.reply = lambda request: Reply(PASS)
    with TrafficStore(project.workspace.traffic) as traffic:
        known = {record.id for record in traffic.records()}
    out = on_a_terminal(
        chatting, "How do I freeze my card?\nand how long does that take?\n\nnever asked\n", monkeypatch
    )
    assert out.count("verdict pass; on topic: yes") == 2
    with TrafficStore(project.workspace.traffic) as traffic:
        first, second = (record for record in traffic.records() if record.id not in known)
    assert [message.content for message in second.messages] == [
        "How do I freeze my card?",
        first.answer,
        "and how long does that take?",
    ]
    assert first.answer.split("\n")[0] in out
    assert second.conversation == first.conversation
    assert transcript(second.request) in chat_server.prompts()[-1]


def test_one_question_is_told_in_json_and_an_outage_of_the_judge_is_an_error(
    project: Project,
    served: ServedModel,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judged = llm_judge(chat_server).settings
    asking = dataclasses.replace(project, settings=project.settings.model_copy(update={"judge": judged}))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    chat_server.reply = lambda request: Reply(PASS)
    inspect.unwrap(ask)(project=asking, question="How do I freeze my card?", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["question"], told["version"], told["verdict"]["outcome"]) == ("How do I freeze my card?", "v7", "pass")
    chat_server.reply = lambda request: Reply("I cannot say.")
    with pytest.raises(UserError, match="the answer could not be judged"):
        inspect.unwrap(ask)(project=asking, question="How do I freeze my new card?", as_json=True)
    assert json.loads(capsys.readouterr().out)["verdict"]["outcome"] == "unjudged"
    with pytest.raises(UserError, match="--json is for one question"):
        inspect.unwrap(ask)(project=asking, as_json=True)


def test_the_end_of_the_input_ends_a_chat(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(project, "", monkeypatch).endswith("> \n")


def test_without_a_terminal_a_question_is_asked_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("hello\n"))
    with pytest.raises(UserError, match="this is no terminal to chat on; give the question"):
        inspect.unwrap(ask)(project=project)


def on_a_terminal(project: Project, typed: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``ask`` without a question prints where this is typed."""
    stdin, out = StringIO(typed), StringIO()
    stdin.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", stdin)
    with contextlib.redirect_stdout(out):
        inspect.unwrap(ask)(project=project)
    return out.getvalue()
