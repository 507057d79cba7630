"""The clients that others use, against the service: the official one, LiteLLM and LangChain's."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from served import openai_client, smol

from ontopic.traffic.store import TrafficStore
from serving.process import ServedModel

# Read when they are imported: LiteLLM would fetch a list of prices, LangChain report to LangSmith.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false"}

import langchain_openai
import litellm

QUESTION = "How do I open a savings account?"
MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a bank's assistant."},
    {"role": "user", "content": QUESTION},
]
LIMIT = 12


@dataclass(frozen=True)
class Served:
    url: str
    key: str
    traffic: Path

    @property
    def litellm(self) -> dict[str, Any]:
        """What LiteLLM's functions take."""
        return {"model": "openai/smol", "api_base": self.url, "api_key": self.key, "max_retries": 0}

    def langchain(self, **more: Any) -> langchain_openai.ChatOpenAI:
        given = {"model": "smol", "base_url": self.url, "api_key": self.key, "max_retries": 0, "temperature": 0}
        return langchain_openai.ChatOpenAI(**(given | more))


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("clients")
    with ServedModel(smol(model_folder, state, max_new_tokens=LIMIT)) as model:
        yield Served(model.base_url, model.api_key, state / "traffic.db")


@pytest.fixture(scope="module")
def said(served: Served) -> str:
    """The answer to the question, by the official client."""
    with openai_client(served.url, served.key) as client:
        answer = client.chat.completions.create(model="smol", messages=MESSAGES)
    text = answer.choices[0].message.content
    assert text
    return text


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No client reports to anybody: whatever is looked up or connected to is on this machine."""
    outside: list[str] = []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def noted(host: Any) -> None:
        name = host.decode() if isinstance(host, bytes) else str(host)
        try:
            loopback = ipaddress.ip_address(name).is_loopback
        except ValueError:
            loopback = name == "localhost"
        if not loopback:
            outside.append(name)

    def watched_look_up(host: Any, *arguments: Any, **named: Any) -> Any:
        noted(host)
        return look_up(host, *arguments, **named)

    def watched_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            noted(address[0])
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", watched_look_up)
    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    # Others' clients go by the environment's proxy, also to this machine.
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name)
    yield
    assert outside == []


def test_openai_whole_streamed_and_async(served: Served, said: str) -> None:
    with openai.OpenAI(base_url=served.url, api_key=served.key, max_retries=0) as client:
        chunks = list(client.chat.completions.create(model="smol", messages=MESSAGES, stream=True))
        short: Any = [{"role": "user", "content": "Reply with one word: what is the capital of France?"}]
        with client.chat.completions.stream(model="smol", messages=short) as stream:
            assert stream.get_final_completion().choices[0].finish_reason == "stop"  # it raises where a limit cuts it
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=served.url, api_key=served.key, max_retries=0) as client:
            whole = client.chat.completions.create(model="smol", messages=MESSAGES)
            streamed = await client.chat.completions.create(model="smol", messages=MESSAGES, stream=True)
            return (await whole).choices[0].message.content, [chunk async for chunk in streamed]

    whole, chunks = asyncio.run(ask())
    assert whole == "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said


def test_litellm_answers_and_streams(served: Served, said: str) -> None:
    answer = litellm.completion(messages=MESSAGES, **served.litellm)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == LIMIT < answer.usage.prompt_tokens
    headers = answer._hidden_params["additional_headers"]
    assert headers["llm_provider-x-ontopic-model-version"] == "v7"
    with TrafficStore(served.traffic) as store:
        (record,) = store.records([headers["llm_provider-x-ontopic-record-id"]])
    assert (record.question, record.answer) == (QUESTION, said)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(litellm.completion(messages=MESSAGES, **options, **served.litellm))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_litellm_is_async_too(served: Served, said: str) -> None:
    async def ask() -> Any:
        whole = await litellm.acompletion(messages=MESSAGES, **served.litellm)
        streamed = await litellm.acompletion(messages=MESSAGES, stream=True, **served.litellm)
        return whole.choices[0].message.content, [chunk async for chunk in streamed]

    whole, chunks = asyncio.run(ask())
    assert whole == "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said


def test_litellm_raises_its_own_errors(served: Served) -> None:
    tool = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(litellm.BadRequestError, match=r"tools must be \[\]"):
        litellm.completion(messages=MESSAGES, tools=[tool], **served.litellm)
    with pytest.raises(litellm.BadRequestError, match="response_format must be"):
        litellm.completion(messages=MESSAGES, response_format={"type": "json_object"}, **served.litellm)
    with pytest.raises(litellm.AuthenticationError, match="not valid"):
        litellm.completion(messages=MESSAGES, **served.litellm | {"api_key": "ot-wrong"})
    with pytest.raises(litellm.NotFoundError, match="it serves 'smol'"):
        litellm.completion(messages=MESSAGES, **served.litellm | {"model": "openai/other"})
    with pytest.raises(litellm.BadRequestError, match="context"):
        litellm.completion(messages=[{"role": "user", "content": "bank " * 9000}], **served.litellm)


def test_langchain_invokes_streams_and_batches(served: Served, said: str) -> None:
    model = served.langchain(include_response_headers=True, stream_usage=True)
    asked = [("system", MESSAGES[0]["content"]), ("human", QUESTION)]
    answer = model.invoke(asked)
    assert answer.content == said
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == LIMIT < answer.usage_metadata["input_tokens"]
    assert answer.response_metadata["headers"]["x-ontopic-model-version"] == "v7"
    chunks = list(model.stream(asked))
    assert "".join(str(chunk.content) for chunk in chunks) == said
    assert [c.usage_metadata for c in chunks if c.usage_metadata] == [answer.usage_metadata]
    assert [each.content for each in model.batch([asked, asked])] == [said, said]
    history = [*asked, ("ai", said), ("human", "Thank you.")]
    assert model.invoke(history).content


def test_langchain_is_async_too(served: Served, said: str) -> None:
    async def ask() -> Any:
        model = served.langchain()
        whole = await model.ainvoke(MESSAGES)
        return whole.content, [chunk async for chunk in model.astream(MESSAGES)]

    whole, chunks = asyncio.run(ask())
    assert whole == "".join(str(chunk.content) for chunk in chunks) == said


def test_langchain_gives_samples_and_log_probabilities(served: Served) -> None:
    model = served.langchain(temperature=1, seed=3, top_p=0.9, max_tokens=4, stop=["\n\n"], logprobs=True)
    first, again = model.invoke(MESSAGES), model.invoke(MESSAGES)
    assert first.content == again.content
    tokens = first.response_metadata["logprobs"]["content"]
    assert 0 < len(tokens) <= 4
    assert tokens[0]["logprob"] <= 0 and tokens[0]["top_logprobs"] == []


def test_langchain_raises_the_official_errors(served: Served) -> None:
    def pay(amount: float) -> None:
        """Pay."""

    with pytest.raises(openai.BadRequestError, match=r"tools must be \[\]"):
        served.langchain().bind_tools([pay]).invoke(MESSAGES)
    with pytest.raises(openai.BadRequestError, match="presence_penalty must be 0"):
        served.langchain(presence_penalty=1).invoke(MESSAGES)
    with pytest.raises(openai.AuthenticationError, match="not valid"):
        served.langchain(api_key="ot-wrong").invoke(MESSAGES)
    with pytest.raises(openai.NotFoundError, match="it serves 'smol'"):
        served.langchain(model="other").invoke(MESSAGES)
