"""The vLLM backend against an engine that stands in for vLLM's, which is not installed here."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from served import smol

from ontopic.errors import UserError
from ontopic.models.answer import Generation, OverloadedError, Piece, Sampling
from serving.process import ServedModel
from serving.vllm_backend import VllmBatch, begin

WORDS = {1: " Yes", 2: ",", 3: " please", 4: ".\n", 0: ""}
END = 0


def token_bytes(token: int) -> bytes:
    return WORDS[token].encode()


@dataclass
class Engine:
    """Answers as vLLM does with deltas: a token a time, the end token with ``stop``; waits after ``holds`` tokens."""

    requests: list[tuple[Any, Any]] = field(default_factory=list)
    holds: int | None = None
    aborted: int = 0
    reason: str = "stop"

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        self.requests.append((prompt, parameters))
        try:
            for i, token in enumerate((1, 2, 3, 4, END)):
                if i == self.holds:
                    await asyncio.Event().wait()
                ended = token == END or i + 1 == parameters.max_tokens
                places = [{t: SimpleNamespace(logprob=-float(t != token), decoded_token=None) for t in (token, 3)}]
                delta = SimpleNamespace(
                    text=WORDS[token],
                    token_ids=[token],
                    logprobs=places if parameters.logprobs is not None else None,
                    finish_reason=(self.reason if token == END else "length") if ended else None,
                    stop_reason=None,
                )
                yield SimpleNamespace(outputs=[delta], finished=ended)
                await asyncio.sleep(0)
                if ended:
                    return
        except asyncio.CancelledError:
            self.aborted += 1
            raise

    def shutdown(self) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    engine = Engine()
    vllm: Any = ModuleType("vllm")
    vllm.AsyncEngineArgs = SimpleNamespace
    vllm.AsyncLLMEngine = SimpleNamespace(from_engine_args=lambda _: engine)
    vllm.SamplingParams = SimpleNamespace
    vllm.TokensPrompt = dict
    parameters: Any = ModuleType("vllm.sampling_params")
    parameters.RequestOutputKind = SimpleNamespace(DELTA=1)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", parameters)
    yield engine


def test_an_answer_is_as_that_of_the_other_engines(engine: Engine, tmp_path: Path) -> None:
    batch = VllmBatch(tmp_path, token_bytes)
    pieces: list[Piece] = []
    generation = Generation([7, 8], Sampling(9, top_p=0, seed=-1, stop=("x",), top_logprobs=1), pieces.append)
    batch.submit([generation])
    answer = generation.done.result(10)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("Yes, please.", 2, 4)
    assert answer.finish_reason == "stop"
    assert "".join(piece.text for piece in pieces) == answer.text
    assert [each.token for each in answer.logprobs] == [b" Yes", b",", b" please", b".\n"]
    assert answer.logprobs[0].top == ((b" Yes", 0.0),)
    prompt, parameters = engine.requests[0]
    assert prompt == {"prompt_token_ids": [7, 8]}
    assert (parameters.temperature, parameters.top_p, parameters.seed) == (0, 1, 2**63 - 1)
    cut = Generation([7], Sampling(2))
    batch.submit([cut])
    assert (cut.done.result(10).text, cut.done.result().finish_reason) == ("Yes,", "length")
    batch.close(10)
    with pytest.raises(RuntimeError, match="out of service"):
        batch.submit([Generation([7], Sampling(2))])


def test_a_cancelled_answer_gives_up_its_place(engine: Engine, tmp_path: Path) -> None:
    engine.holds = 0
    batch = VllmBatch(tmp_path, token_bytes, most_waiting=2)
    waiting = [Generation([7], Sampling(9)) for _ in range(2)]
    batch.submit(waiting)
    assert (batch.waiting, batch.running) == (2, 0)
    with pytest.raises(OverloadedError):
        batch.submit([Generation([7], Sampling(9))])
    while len(engine.requests) < 2:
        pass
    for each in waiting:
        each.done.cancel()
    while batch.waiting:
        pass
    assert engine.aborted == 2
    batch.close(10)


def test_an_answer_that_vllm_aborts_is_an_error(engine: Engine, tmp_path: Path) -> None:
    engine.reason = "abort"
    batch = VllmBatch(tmp_path, token_bytes)
    generation = Generation([7], Sampling(9))
    batch.submit([generation])
    with pytest.raises(RuntimeError, match="abort"):
        generation.done.result(10)


def test_an_adapter_is_refused(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="PEFT adapter"):
        begin(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_service_says_so(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONTOPIC_BACKEND", "vllm")
    with pytest.raises(UserError, match=r"ONTOPIC_BACKEND is vllm.*bentofile\.vllm\.yaml"):
        ServedModel(smol(model_folder, tmp_path)).__enter__()
