"""The guard in the request path: the real model behind the real judge, in this process, on cards that stop more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock
from starlette.testclient import TestClient

from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.judges.guard.card import guard_card
from ontopic.judges.guard.guard import Asked
from ontopic.judges.judge import Judge
from ontopic.records import GuardDecision, Message, Record
from ontopic.state.workspace import Workspace
from serving.access import Access
from serving.assistant import ServedAssistant
from serving.deployment import deploy
from serving.guard import DOWN, TOO_SLOW, ServedGuard
from serving.guarding import Guarding
from serving.routes import api

REFUSAL = "I'm sorry, I can only help with banking questions."
CARD, POEM = "How do I freeze my debit card in the app?", "Write me a short poem about the sea."
LIMIT = 16


@dataclass
class Guarded:
    """A service in this process, whose guard is put in place for each test.

    Attributes:
        whole: a guard of the card as it was chosen.
        answers: one that stops answers alone, and whatever the judge fails.
    """

    client: TestClient
    assistant: ServedAssistant
    whole: ServedGuard
    answers: ServedGuard

    def by(self, guard: ServedGuard | None, **guarding: Any) -> None:
        if guard is not None:
            guard.guarding = Guarding(card=guard.guarding.card, **({"mode": "enforce", "timeout_s": 30} | guarding))
        self.assistant.deployment = replace(self.assistant.deployment, guard=guard)

    def ask(self, question: str, **parameters: Any) -> Any:
        messages = parameters.pop("messages", [{"role": "user", "content": question}])
        body = {"model": "smol", "messages": messages, "max_tokens": LIMIT} | parameters
        return self.client.post("/v1/chat/completions", json=body)

    def records(self, response: Any) -> list[Record]:
        ids = response.headers["x-ontopic-record-id"].split(",")
        kept = {record.id: record for record in self.assistant.traffic.records(ids)}
        return [kept[i] for i in ids]

    def decision(self, response: Any) -> GuardDecision:
        (record,) = self.records(response)
        assert record.guard is not None
        return record.guard


@pytest.fixture(scope="module")
def cards(
    local_judge: Judge, small_banking: Policy, session_state: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    workspace = Workspace(root=session_state)
    with FileLock(session_state / "judge.lock"):
        card = guard_card(small_banking, workspace=workspace, budget=0.02)
    folder = tmp_path_factory.mktemp("cards")
    (folder / card.judge_id).symlink_to(workspace.judges / card.judge_id)
    answers = card.model_copy(
        update={
            "question": card.question.model_copy(update={"chosen": 0.0}),
            "answer": card.answer.model_copy(update={"chosen": 0.5}),
        }
    )
    for name, of in (("whole", card), ("answers", answers)):
        (folder / f"{name}.guard.json").write_text(of.model_dump_json())
    return {name: folder / f"{name}.guard.json" for name in ("whole", "answers")}


@pytest.fixture(scope="module")
def running(cards: dict[str, Path], model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    guards = {name: ServedGuard(Guarding(mode="enforce", card=card, timeout_s=30)) for name, card in cards.items()}
    variables = {
        "ONTOPIC_MODEL_FOLDER": str(model_folder),
        "ONTOPIC_MODEL_VERSION": "7",
        "ONTOPIC_MODEL_NAME": "smol",
        "ONTOPIC_MAX_NEW_TOKENS": "64",
        "ONTOPIC_TRAFFIC": str(tmp_path_factory.mktemp("guarded") / "traffic.db"),
    }
    assistant = ServedAssistant(variables)
    api.state.assistant = assistant
    try:
        assert all(guard.wait_until_ready() for guard in guards.values())
        with TestClient(Access(api, {"ONTOPIC_NO_AUTH": "1"}), base_url="http://127.0.0.1") as client:
            yield Guarded(client, assistant, guards["whole"], guards["answers"])
    finally:
        for guard in guards.values():
            guard.close()
        assistant.close()


@pytest.fixture
def guarded(running: Guarded) -> Guarded:
    running.by(running.whole)
    return running


def chunks(response: Any) -> list[dict[str, Any]]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def streamed(response: Any) -> tuple[str, str]:
    """The text of a stream of one choice, and its finish reason."""
    choices = [chunk["choices"][0] for chunk in chunks(response) if chunk["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1
    return "".join(choice["delta"].get("content", "") for choice in choices), reasons[0]


def test_a_question_out_of_scope_gets_the_refusal_and_nothing_is_generated(guarded: Guarded) -> None:
    response = guarded.ask(POEM, n=2)
    body = response.json()
    assert [c["message"]["content"] for c in body["choices"]] == [REFUSAL] * 2
    assert [c["finish_reason"] for c in body["choices"]] == ["content_filter"] * 2
    assert body["usage"]["completion_tokens"] == 0 < body["usage"]["prompt_tokens"]
    assert response.headers["x-ontopic-guard"] == "question,question"
    for record in guarded.records(response):
        assert (record.answer, record.finish_reason, record.completion_tokens) == (REFUSAL, "content_filter", 0)
        assert record.guard is not None
        assert (record.guard.stage, record.guard.mode, record.guard.withheld) == ("question", "enforce", "")
        assert record.guard.judge_id.startswith("local-")
        assert record.guard.scope_score is not None
        assert record.guard.scope_score < 0.2


def test_a_question_in_scope_is_answered_and_the_record_says_that_the_guard_looked(guarded: Guarded) -> None:
    response = guarded.ask(CARD)
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] in ("stop", "length")
    assert response.headers["x-ontopic-guard"] == "passed"
    decision = guarded.decision(response)
    assert (decision.stage, decision.failure) == ("", "")
    assert decision.scope_score is not None
    assert decision.scope_score > 0.5
    assert decision.answer_score is not None


def test_an_answer_that_fails_is_replaced_and_kept_with_its_tokens(guarded: Guarded) -> None:
    guarded.by(None)
    alone = guarded.ask(POEM).json()
    guarded.by(guarded.answers)
    response = guarded.ask(POEM, logprobs=True)
    choice = response.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (REFUSAL, "content_filter")
    assert choice["logprobs"]["content"] == []
    assert response.json()["usage"] == alone["usage"]
    assert response.headers["x-ontopic-guard"] == "answer"
    decision = guarded.decision(response)
    assert (decision.stage, decision.withheld) == ("answer", alone["choices"][0]["message"]["content"])


def test_each_choice_is_judged_on_its_own(guarded: Guarded) -> None:
    guarded.by(guarded.answers)
    response = guarded.ask(CARD, n=4, temperature=2.0, seed=1)
    texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    said = response.headers["x-ontopic-guard"].split(",")
    assert [text == REFUSAL for text in texts] == [each == "answer" for each in said]
    records = guarded.records(response)
    assert [record.answer for record in records] == texts
    assert [record.guard.stage for record in records if record.guard] == [
        "answer" if each == "answer" else "" for each in said
    ]


def test_a_guard_that_observes_lets_all_pass_and_records_what_it_would_do(guarded: Guarded) -> None:
    guarded.by(None)
    alone = guarded.ask(POEM).json()["choices"][0]
    guarded.by(guarded.whole, mode="observe")
    for stream in (False, True):
        response = guarded.ask(POEM, stream=stream)
        assert "x-ontopic-guard" not in response.headers
        text = streamed(response)[0] if stream else response.json()["choices"][0]["message"]["content"]
        assert text == alone["message"]["content"]
        (record,) = guarded.records(response)
        assert record.guard is not None
        assert (record.guard.mode, record.guard.stage, record.guard.withheld) == ("observe", "question", "")
        assert record.guard.answer_score is not None
        assert record.finish_reason == alone["finish_reason"]


def test_a_stream_of_a_stopped_question_is_the_refusal(guarded: Guarded) -> None:
    response = guarded.ask(POEM, stream=True, stream_options={"include_usage": True})
    assert streamed(response) == (REFUSAL, "content_filter")
    assert response.headers["x-ontopic-guard"] == "question"
    assert chunks(response)[-1]["usage"]["completion_tokens"] == 0
    assert guarded.records(response)[0].answer == REFUSAL


def test_a_stream_that_holds_back_sends_nothing_of_what_fails(guarded: Guarded) -> None:
    guarded.by(guarded.answers, held_back="sentence")
    response = guarded.ask(POEM, stream=True)
    assert streamed(response) == (REFUSAL, "content_filter")
    (record,) = guarded.records(response)
    assert record.guard is not None
    assert record.answer == REFUSAL
    assert record.guard.stage == "answer"
    assert record.guard.withheld != ""


def test_a_stream_that_holds_nothing_back_is_cut(guarded: Guarded) -> None:
    guarded.by(None)
    alone = guarded.ask(POEM, max_tokens=40).json()
    guarded.by(guarded.answers)
    response = guarded.ask(POEM, stream=True, max_tokens=40)
    text, reason = streamed(response)
    assert reason == "content_filter"
    assert text
    assert alone["choices"][0]["message"]["content"].startswith(text)
    (record,) = guarded.records(response)
    assert record.guard is not None
    assert (record.answer, record.guard.stage) == (text, "answer")
    assert record.completion_tokens <= alone["usage"]["completion_tokens"]


@pytest.mark.parametrize("held_back", ["sentence", "none"])
def test_a_good_stream_says_the_same_as_without_a_guard(guarded: Guarded, held_back: str) -> None:
    guarded.by(None)
    alone = guarded.ask(CARD, max_tokens=32, logprobs=True).json()
    guarded.by(guarded.whole, held_back=held_back)
    response = guarded.ask(CARD, max_tokens=32, logprobs=True, stream=True, stream_options={"include_usage": True})
    assert streamed(response) == (alone["choices"][0]["message"]["content"], alone["choices"][0]["finish_reason"])
    assert chunks(response)[-1]["usage"] == alone["usage"]
    tokens = [
        t for c in chunks(response) if c["choices"] for t in (c["choices"][0]["logprobs"] or {}).get("content", [])
    ]
    assert tokens == alone["choices"][0]["logprobs"]["content"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_what_the_guard_cannot_judge_goes_by_the_setting(guarded: Guarded, stream: bool) -> None:
    question = "Jak mogę zablokować w aplikacji moją kartę, jeśli ją zgubiłem?"
    guarded.by(guarded.whole, on_failure="closed")
    refused = guarded.ask(question, stream=stream)
    guarded.by(guarded.whole, on_failure="open")
    passed = guarded.ask(question, stream=stream)
    assert {response.headers["x-ontopic-guard"] for response in (refused, passed)} == {"unjudged"}
    stages = [(guarded.decision(r).stage, guarded.records(r)[0].finish_reason) for r in (refused, passed)]
    assert stages[0] == ("question", "content_filter")
    assert (stages[1][0], stages[1][1]) in (("", "stop"), ("", "length"))
    assert "language" in guarded.decision(passed).failure


def test_a_guard_that_is_too_slow_goes_by_the_setting(guarded: Guarded) -> None:
    for on_failure, stage in (("open", ""), ("closed", "question")):
        guarded.by(guarded.whole, on_failure=on_failure, timeout_s=1e-6)
        response = guarded.ask(CARD)
        decision = guarded.decision(response)
        assert (decision.stage, decision.failure, decision.judge_id) == (stage, TOO_SLOW, "")
        assert response.headers["x-ontopic-guard"] == "down"
    page = guarded.client.get("/metrics").text
    assert 'ontopic_guard_decisions_total{decision="failed",stage="question"}' in page


def test_a_guard_whose_process_dies_is_down_and_comes_back(guarded: Guarded) -> None:
    first = guarded.whole.pid
    assert first is not None
    guarded.by(guarded.whole, on_failure="closed")
    os.kill(first, signal.SIGKILL)
    seen: list[Any] = []

    def says(what: str) -> bool:
        seen.append(guarded.ask(CARD, max_tokens=1))
        return bool(seen[-1].headers["x-ontopic-guard"] == what)

    _until(lambda: says("down"))
    assert guarded.decision(seen[-1]).failure == DOWN
    assert seen[-1].json()["choices"][0]["message"]["content"] == REFUSAL
    _until(lambda: not says("down"))
    assert guarded.decision(seen[-1]).failure != DOWN
    assert guarded.whole.pid != first


def test_a_version_is_deployed_with_the_guard_of_the_newest_card(
    cards: dict[str, Path], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = json.loads(cards["whole"].read_text())
    newest = cards["whole"].with_name("newest.guard.json")
    newest.write_text(json.dumps(card | {"refusals": {"refusal": "Only banking, please."}}))
    for name, value in Guarding(mode="enforce", card=newest).environment().items():
        monkeypatch.setenv(name, value)
    deployment = deploy(model_folder, "8")
    try:
        assert deployment.guard is not None
        assert deployment.guard.refusals.refusal == "Only banking, please."
        question = Asked(messages=(Message(role="user", content=POEM),))
        deployment.guard.guarding = deployment.guard.guarding.model_copy(update={"timeout_s": 30})
        found = asyncio.run(deployment.guard.opinion(question))
        assert (found.stops, found.judge_id) == (True, card["judge_id"])
    finally:
        assert deployment.guard is not None
        pid = deployment.guard.pid
        deployment.guard.guarding = deployment.guard.guarding.model_copy(update={"timeout_s": 0.1})
        deployment.drain()
    _until(lambda: pid is None or not psutil.pid_exists(pid))


def test_without_a_card_there_is_no_guard(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="calibrate"):
        ServedGuard(Guarding(mode="enforce", card=tmp_path / "none.guard.json"))


def test_the_environment_gives_the_settings_back(tmp_path: Path) -> None:
    card = (tmp_path / "a.guard.json").resolve()
    guarding = Guarding(mode="observe", card=card, on_failure="closed", held_back="sentence", timeout_s=0.5)
    assert Guarding.of_environment(guarding.environment()) == guarding
    assert Guarding.of_environment({}) is None


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(2)
