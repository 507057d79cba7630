"""A service in motion: the champion changes, it is told to end, it is killed; no question that it took is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import mlflow
import openai
import psutil
import pytest
from served import openai_client

from ontopic.models.loading import load
from ontopic.registry import versions as registry
from ontopic.registry.promotions import open_registry
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel, Serving

NAME = "ontopic-moving"
CLIENTS = 8


@dataclass
class Load:
    """Clients that ask one question after another, each a new one, until they are stopped.

    Attributes:
        answered: record id and version of each answer.
        newest: the version of each client's newest answer; what it asks next began after that.
    """

    url: str
    key: str
    max_tokens: int = 6
    answered: list[tuple[str, str]] = field(default_factory=list)
    newest: dict[int, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, client: int) -> None:
        with openai_client(self.url, self.key) as server:
            number = 0
            while not self.stop.is_set():
                number += 1
                message = [{"role": "user", "content": f"What is {client} plus {number}?"}]
                try:
                    raw = server.chat.completions.with_raw_response.create(
                        model=NAME,
                        messages=message,  # type: ignore[arg-type]
                        max_tokens=self.max_tokens,
                    )
                except openai.OpenAIError as error:
                    self.failed.append(repr(error))
                    time.sleep(0.1)
                    continue
                headers = raw.headers
                self.answered.append((headers["x-ontopic-record-id"], headers["x-ontopic-model-version"]))
                self.newest[client] = headers["x-ontopic-model-version"]

    def wait_for(self, answers: int) -> None:
        deadline, goal = time.monotonic() + 120, len(self.answered) + answers
        while len(self.answered) < goal:
            assert time.monotonic() < deadline, self.failed[-3:]
            time.sleep(0.05)


@pytest.fixture(scope="module")
def two_versions(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A registry with two versions of which the first is the champion; the second's answers differ."""
    import torch

    workspace = open_workspace(tmp_path_factory.mktemp("moving"))
    open_tracking(workspace, NAME)
    other = load(model_folder)
    with torch.no_grad():
        other.model.get_output_embeddings().weight.mul_(-1)
    other.model.save_pretrained(workspace.root / "other")
    other.tokenizer.save_pretrained(workspace.root / "other")
    for folder in (model_folder, workspace.root / "other"):
        with mlflow.start_run() as run:
            registry.register(NAME, folder, digest=folder.name, run_id=run.info.run_id, workspace=workspace, tags={})
    open_registry(workspace, NAME).ensure_champion("1")
    return workspace


def serve(workspace: Workspace, model_folder: Path, *, follow: bool = True) -> ServedModel:
    uri = workspace.mlflow_uri if follow else None
    return ServedModel(
        Serving(
            model_folder=model_folder,
            model_version="1",
            model_name=NAME,
            traffic=workspace.traffic,
            state=workspace.root,
            max_new_tokens=64,
            follow=uri,
        )
    )


def stored(workspace: Workspace) -> dict[str, str]:
    """The version of each stored record."""
    with TrafficStore(workspace.traffic) as traffic:
        return {record.id: record.model_version for record in traffic.stream()}


@pytest.mark.slow
def test_a_promotion_is_followed_and_no_request_fails(two_versions: Workspace, model_folder: Path) -> None:
    def answered_by(version: str) -> None:
        # By all of them: an answer of before the last move may come late.
        deadline = time.monotonic() + 180
        while list(clients.newest.values()) != [version] * CLIENTS:
            assert time.monotonic() < deadline, clients.newest
            time.sleep(0.1)

    with serve(two_versions, model_folder) as served:
        worker = max(psutil.Process(served.pid).children(recursive=True), key=lambda p: p.memory_info().rss)
        with Load(served.base_url, served.api_key) as clients:
            clients.wait_for(CLIENTS)
            open_registry(two_versions, NAME).promote("2", by="ann", why="to see")
            answered_by("2")
            open_registry(two_versions, NAME).roll_back("ann", why="seen")
            answered_by("1")
            once = worker.memory_info().rss
            for _ in range(2):
                open_registry(two_versions, NAME).promote("2", by="ann", why="again")
                answered_by("2")
                open_registry(two_versions, NAME).roll_back("ann", why="and back")
                answered_by("1")
            clients.wait_for(CLIENTS)
        again = worker.memory_info().rss
        headers = {"authorization": f"Bearer {served.api_key}"}
        root = served.base_url.removesuffix("/v1")
        metrics = httpx.get(f"{root}/metrics", headers=headers, trust_env=False).text
        assert 'ontopic_model_info{version="1"} 1.0' in metrics
        assert 'ontopic_model_info{version="2"} 0.0' in metrics
        (entry,) = httpx.get(f"{served.base_url}/models", headers=headers, trust_env=False).json()["data"]
        assert entry["version"] == "1"
    assert clients.failed == []
    assert dict(clients.answered) == stored(two_versions)
    assert again < once + 400e6, "the weights of versions that are gone are still there"


@pytest.mark.slow
def test_a_version_that_does_not_load_leaves_the_old_one(two_versions: Workspace, model_folder: Path) -> None:
    (two_versions.root / "empty").mkdir()
    with mlflow.start_run() as run:
        (two_versions.root / "empty" / "nothing").write_text("")
        broken = registry.register(
            NAME, two_versions.root / "empty", digest="e", run_id=run.info.run_id, workspace=two_versions, tags={}
        )
    with serve(two_versions, model_folder) as served, Load(served.base_url, served.api_key) as clients:
        open_registry(two_versions, NAME).promote(broken.version, by="bob", why="untried")
        deadline = time.monotonic() + 60
        while "could not be followed" not in served.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        clients.wait_for(CLIENTS)
        open_registry(two_versions, NAME).roll_back("bob", why="tried")
        clients.wait_for(CLIENTS)
    assert clients.failed == []
    assert {version for _, version in clients.answered} == {"1"}


def test_what_was_accepted_is_answered_after_sigterm(two_versions: Workspace, model_folder: Path) -> None:
    def ask(number: int) -> str:
        message = [{"role": "user", "content": f"Tell me a long story about bank number {number}."}]
        with openai_client(served.base_url, served.api_key) as server:
            if number % 2:
                chunks = server.chat.completions.create(model=NAME, messages=message, max_tokens=64, stream=True)  # type: ignore[call-overload]
                return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            whole = server.chat.completions.create(model=NAME, messages=message, max_tokens=64)  # type: ignore[arg-type]
            return whole.choices[0].message.content or ""

    before = stored(two_versions)
    with serve(two_versions, model_folder, follow=False) as served, ThreadPoolExecutor(12) as clients:
        waiting = [clients.submit(ask, number) for number in range(12)]
        headers = {"authorization": f"Bearer {served.api_key}"}
        url = f"{served.base_url.removesuffix('/v1')}/metrics"
        deadline = time.monotonic() + 60
        while "ontopic_running 12.0" not in httpx.get(url, headers=headers, trust_env=False).text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(served.pid, signal.SIGTERM)
        answers = [each.result() for each in waiting]
    assert all(len(answer) > 40 for answer in answers)
    with TrafficStore(two_versions.traffic) as traffic:
        records = [record for record in traffic.stream() if record.id not in before]
    assert sorted(record.answer for record in records) == sorted(answers)


@pytest.mark.parametrize("attempt", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 6))])
def test_every_answer_before_kill_9_is_stored_once(two_versions: Workspace, model_folder: Path, attempt: int) -> None:
    before = stored(two_versions)
    with serve(two_versions, model_folder, follow=False) as served, Load(served.base_url, served.api_key) as clients:
        clients.wait_for(5 * CLIENTS + attempt)
        family = [psutil.Process(served.pid), *psutil.Process(served.pid).children(recursive=True)]
        for process in family:
            process.kill()
        clients.stop.set()
    ids = [record_id for record_id, _ in clients.answered]
    assert len(ids) == len(set(ids))
    after = stored(two_versions)
    new = set(after) - set(before)
    assert set(ids) <= new
    assert len(new) <= len(ids) + CLIENTS  # a stored answer may not have reached its client any more
