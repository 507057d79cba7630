"""Two versions in one service: who answers which conversation, what is answered unseen, and what is dropped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest
from loopback import ROOT
from starlette.testclient import TestClient
from tuned_models import small_base, tuned

from ontopic.config.watch_settings import PromotionSettings
from ontopic.models.answer import Sampling
from ontopic.models.engines import begin_batch
from ontopic.models.generation import generate
from ontopic.models.loading import load
from ontopic.records import Record
from ontopic.registry import versions
from ontopic.registry.promotions import ROLLOUT, ModelRegistry, open_registry
from ontopic.registry.rollouts import Rollout, end, promote_or_roll_out, rollout_of
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace
from serving.access import Access
from serving.assistant import ServedAssistant
from serving.deployment import Deployment
from serving.following import answering
from serving.prompts import Prompts
from serving.routes import api
from serving.shadow import MOST_WAITING, Shadow

NAME = "ontopic-rolling"


@dataclass
class Service:
    """A service in this process that follows a registry with three versions, of which the first is the champion."""

    client: TestClient
    assistant: ServedAssistant
    workspace: Workspace
    folders: list[Path]

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, NAME)

    def begin(self, version: str, rollout: str | list[int]) -> Rollout:
        settings = PromotionSettings.model_validate({"rollout": rollout})
        promote_or_roll_out(self.registry, version, settings=settings, by="ann", why="better", facts={})
        begun = self.rollout
        assert begun is not None
        self.wait(lambda: self.assistant.rolling is not None and self.assistant.rolling.rollout == begun)
        return begun

    @property
    def rollout(self) -> Rollout | None:
        return rollout_of(self.registry.record.entries(NAME))

    def end(self) -> None:
        if (rollout := self.rollout) is not None:
            end(self.registry, rollout, outcome="returned", by="ann", why="worse", at=datetime.now(UTC))
        self.wait(lambda: self.assistant.rolling is None)

    def wait(self, until: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not until():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask(self, conversation: str, **more: Any) -> Record:
        messages = [{"role": "user", "content": "What is two plus two?"}]
        body = {"model": NAME, "messages": messages, "max_tokens": 5} | more
        response = self.client.post("/v1/chat/completions", json=body, headers={"x-conversation-id": conversation})
        assert response.status_code == 200, response.text
        (record,) = self.assistant.traffic.records([response.headers["x-ontopic-record-id"]])
        assert record.model_version == response.headers["x-ontopic-model-version"]
        return record

    def metric(self, line: str) -> float:
        page = self.client.get("/metrics").text.splitlines()
        return sum(float(each.rpartition(" ")[2]) for each in page if each.startswith(line))


def variables(workspace: Workspace, folder: Path, *, state: Path) -> dict[str, str]:
    """The environment of a service with its own state folder that follows the registry of a workspace."""
    return {
        "ONTOPIC_MODEL_FOLDER": str(folder),
        "ONTOPIC_MODEL_VERSION": "1",
        "ONTOPIC_MODEL_NAME": NAME,
        "ONTOPIC_MAX_NEW_TOKENS": "16",
        "ONTOPIC_TRAFFIC": str(workspace.traffic),
        "ONTOPIC_FOLLOW": str(state),
        "MLFLOW_TRACKING_URI": workspace.mlflow_uri,
    }


@pytest.fixture(scope="module")
def running(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    workspace = open_workspace(tmp_path_factory.mktemp("rolling"))
    open_tracking(workspace, NAME)
    base = small_base(workspace.root / "base", model_folder)
    folders = [tuned(base, workspace.root / f"v{seed}", seed=seed) for seed in (1, 2, 3)]
    for folder in folders:
        with mlflow.start_run() as run:
            values = {"digest": folder.name, "run_id": run.info.run_id, "workspace": workspace, "tags": {}}
            versions.register(NAME, folder, **values)  # type: ignore[arg-type]
    open_registry(workspace, NAME).ensure_champion("1")
    assistant = ServedAssistant(variables(workspace, folders[0], state=workspace.root))
    api.state.assistant = assistant
    with TestClient(Access(api, {"ONTOPIC_NO_AUTH": "1"}), base_url="http://127.0.0.1") as client:
        yield Service(client, assistant, workspace, folders)
    assistant.close()


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    yield running
    running.end()


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.slow), True])
def test_each_conversation_stays_with_the_version_that_has_it(service: Service, stream: bool) -> None:
    rollout = service.begin("2", [40, 100])
    names = [f"conversation {i}" for i in range(20)]
    first = [service.ask(name, stream=stream) for name in names]
    again = [service.ask(name, temperature=1.0) for name in names]
    expected = ["2" if rollout.answers(name) else "1" for name in names]
    assert [record.model_version for record in first] == [record.model_version for record in again] == expected
    assert set(expected) == {"1", "2"}
    assert {record.rollout for record in (*first, *again)} == {"40 %"}
    assert service.metric('ontopic_rollout_share{version="2"}') == 40
    alone = {
        v: generate(load(service.folders[int(v) - 1]), [record.request], max_new_tokens=5)[0].text
        for v, record in zip(expected, first, strict=True)
    }
    assert [record.answer for record in first] == [alone[v] for v in expected]
    service.end()
    after = [service.ask(name) for name in names]
    assert {record.model_version for record in after} == {"1"} and {record.rollout for record in after} == {""}
    assert service.metric('ontopic_rollout_share{version="2"}') == -1


def test_all_replicas_follow_and_have_each_conversation_answered_by_the_same_version(
    service: Service, tmp_path: Path
) -> None:
    other = ServedAssistant(variables(service.workspace, service.folders[0], state=tmp_path))
    names = [f"conversation {i}" for i in range(200)]

    def version(replica: ServedAssistant, name: str) -> str:
        return answering(replica, name)[0].version

    try:
        rollout = service.begin("2", [30, 100])
        service.wait(lambda: other.rolling is not None)
        expected = ["2" if rollout.answers(name) else "1" for name in names]
        assert 20 < expected.count("2") < 100
        assert [version(service.assistant, name) for name in names] == expected
        assert [version(other, name) for name in names] == expected
        service.registry.promote("2", by="ann", why="all")
        service.wait(lambda: {version(each, name) for each in (service.assistant, other) for name in names} == {"2"})
        service.registry.roll_back("ann", why="seen")
        service.wait(lambda: {version(each, name) for each in (service.assistant, other) for name in names} == {"1"})
    finally:
        other.close()


def test_a_conversations_share_is_the_same_in_each_process(service: Service) -> None:
    rollout = service.begin("2", [30, 100])
    code = (
        "import sys\nfrom ontopic.registry.rollouts import Rollout\n"
        "rollout = Rollout.model_validate_json(sys.argv[1])\n"
        "print(*(int(rollout.answers(f'c{i}')) for i in range(300)))"
    )
    run = [sys.executable, "-c", code, service.registry.noted(ROLLOUT, "")]
    told = {
        subprocess.run(
            run, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {" ".join(str(int(rollout.answers(f"c{i}"))) for i in range(300)) + "\n"}


def test_a_later_stage_goes_on_with_the_weights_that_are_loaded(service: Service) -> None:
    from ontopic.registry.rollouts import go_on

    service.begin("2", [5, 60, 100])
    rolling, rollout = service.assistant.rolling, service.rollout
    assert rolling is not None and rollout is not None
    go_on(service.registry, rollout, by="ann", why="fine", at=datetime.now(UTC), stage={"share": 5})
    service.wait(lambda: service.assistant.rolling is not rolling)
    later = service.assistant.rolling
    assert later is not None and later.rollout.share == 60 and later.deployment is rolling.deployment
    assert service.ask("c").rollout == "60 %"


def test_what_is_answered_unseen_is_stored_beside_what_users_got(service: Service) -> None:
    service.begin("3", "shadow")
    records = [service.ask(f"c{i}") for i in range(3)] + [service.ask("c3", stream=True)]
    assert {(record.model_version, record.rollout) for record in records} == {("1", "shadow")}
    ids = [record.id for record in records]
    service.wait(lambda: len(service.assistant.traffic.shadow(ids, "3")) == 4)
    model = load(service.folders[2])
    (alone,) = generate(model, [records[0].request], max_new_tokens=5)
    unseen = service.assistant.traffic.shadow(ids)
    assert {each.answer for each in unseen} == {alone.text} != {records[0].answer}
    assert {each.model_version for each in unseen} == {"3"}
    assert {record.model_version for record in service.assistant.traffic.stream()} <= {"1", "2"}
    assert service.metric('ontopic_shadow_answers_total{outcome="stored"}') >= 4


def test_a_busy_service_drops_what_nobody_waits_for(service: Service) -> None:
    model = load(service.folders[1])
    idle = threading.Event()
    batch = begin_batch(model, most_waiting=MOST_WAITING, yields_to=lambda: not idle.wait(60))
    shadow = Shadow(Deployment("2", Prompts(model), batch), service.assistant.traffic)
    asked, dropped = service.ask("c"), service.metric('ontopic_shadow_answers_total{outcome="dropped"}')
    for _ in range(MOST_WAITING + 5):
        shadow.offer(asked.request, [Sampling(3)], ids=[asked.id])
    assert service.metric('ontopic_shadow_answers_total{outcome="dropped"}') == dropped + 5
    assert service.assistant.traffic.shadow([asked.id]) == []
    idle.set()
    service.wait(lambda: service.assistant.traffic.shadow([asked.id], "2"))
    shadow.close()
    batch.close()


def test_a_service_that_is_always_busy_answers_some(service: Service) -> None:
    batch = begin_batch(load(service.folders[1]), most_waiting=MOST_WAITING, yields_to=lambda: True)
    shadow = Shadow(Deployment("2", Prompts(load(service.folders[1])), batch), service.assistant.traffic)
    asked = service.ask("c")
    shadow.offer(asked.request, [Sampling(3)], ids=[asked.id])
    service.wait(lambda: service.assistant.traffic.shadow([asked.id], "2"))
    shadow.close()
    batch.close()


def test_a_promotion_at_the_end_of_a_rollout_leaves_one_version(service: Service) -> None:
    service.begin("2", [40, 100])
    service.registry.promote("2", by="ann", why="all")
    service.wait(lambda: service.assistant.deployment.version == "2")
    assert service.assistant.rolling is None
    assert service.ask("any").model_version == "2"
    service.registry.roll_back("ann", why="seen")
    service.wait(lambda: service.assistant.deployment.version == "1")
    assert service.assistant.rolling is None
