"""A service before another server: each request goes on as it was sent, and what goes wrong there is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from loopback import ROOT, ChatServer, Reply, running_server
from served import openai_client, proxy_config
from typer.testing import CliRunner

import run
from ontopic.config.settings import EndpointSettings
from ontopic.models.answer import Generation, OverloadedError, Sampling
from ontopic.traffic.store import TrafficStore
from serving.errors import RequestError
from serving.openai_backend import UpstreamBatch

KEY = "upstream-secret-7d1f"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
MESSAGES: Any = [{"role": "user", "content": "How do I freeze my card?"}]


@dataclass(frozen=True)
class Proxy:
    client: openai.OpenAI
    upstream: ChatServer
    traffic: Path
    log: Path
    process: psutil.Popen
    options: list[str]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """What `python run.py serve` starts in a state folder of no model."""
    state = tmp_path_factory.mktemp("proxy")
    with running_server() as server:
        judge = {"kind": "openai", "model": "grader", "base_url": server.url}
        config = proxy_config(
            state, server.url, judge=judge, api_key_variable="UPSTREAM_KEY", timeout_s=1, max_tokens=100
        )
        options = ["--config", str(config), "--state", str(state)]
        key = CliRunner().invoke(run.app, ["keys", "make", "tests", *options]).stdout.strip()
        command = [sys.executable, str(ROOT / "run.py"), "serve", *options]
        environment = os.environ | {"UPSTREAM_KEY": KEY, "PYTHONUNBUFFERED": "1"}
        process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            said = process.stdout.readline()
            assert said.startswith("ontopic-gardening, a proxy to gpt-4o, at http://127.0.0.1:"), said
            with openai_client(said.split(" at ")[1].split(";")[0], key) as client:
                yield Proxy(client, server, state / "traffic.db", state / "serving.log", process, options)
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def asked(proxy: Proxy) -> Callable[..., Any]:
    """Asks the service; the upstream server gives ``reply``."""

    def ask(reply: Reply, **parameters: Any) -> Any:
        proxy.upstream.reply = lambda _: reply
        proxy.upstream.requests.clear()
        given = {"model": "ontopic-gardening", "messages": MESSAGES} | parameters
        return proxy.client.chat.completions.with_raw_response.create(**given)

    return ask


def newest(proxy: Proxy) -> Any:
    with TrafficStore(proxy.traffic) as store:
        return store.newest(1)[0]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_request_goes_on_as_it_was_sent_and_its_answer_has_a_record(proxy: Proxy, asked: Callable[..., Any]) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "You are a bank's assistant."}], "name": "bank"},
        *MESSAGES,
    ]
    sent = {"messages": messages, "temperature": 0.3, "presence_penalty": 1, "stop": ["x"], "user": "u-1"}
    sent |= {"response_format": {"type": "json_object"}, "logit_bias": {"5": 2}, "seed": 4}
    origin = {"model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_1"}
    raw = asked(Reply("In the app.\n", parts={"usage": USAGE} | origin), **sent, max_completion_tokens=101)
    assert proxy.upstream.requests == [sent | {"model": "gpt-4o", "max_completion_tokens": 100}]
    assert proxy.upstream.authorizations[-1] == f"Bearer {KEY}"
    answer, record = raw.parse(), newest(proxy)
    assert (answer.model, answer.choices[0].finish_reason) == ("ontopic-gardening", "stop")
    assert raw.headers["x-ontopic-record-id"] == record.id
    assert raw.headers["x-ontopic-model-version"] == record.model_version == "gpt-4o"
    assert answer.choices[0].message.content == record.answer == "In the app.\n"
    assert (record.registered_model, record.prompt_tokens, record.completion_tokens) == ("ontopic-gardening", 7, 3)
    assert record.metadata == {"served_model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_1"}
    assert (record.parameters.temperature, record.parameters.max_tokens) == (0.3, 100)


def test_what_the_client_leaves_out_is_left_out(proxy: Proxy, asked: Callable[..., Any]) -> None:
    asked(Reply("Yes"), model="gpt-4o", metadata={"conversation": "7"})  # OpenAI takes metadata with `store` alone
    assert proxy.upstream.requests == [{"model": "gpt-4o", "messages": MESSAGES}]
    asked(Reply("Yes"), store=True, metadata={"conversation": "7"})
    assert proxy.upstream.requests[0]["metadata"] == {"conversation": "7"}


def test_choices_are_asked_for_one_by_one(proxy: Proxy, asked: Callable[..., Any]) -> None:
    raw = asked(Reply("Yes", parts={"usage": USAGE}), n=3, seed=5)
    assert sorted(request["seed"] for request in proxy.upstream.requests) == [5, 6, 7]
    assert all("n" not in request for request in proxy.upstream.requests)
    answer = raw.parse()
    assert [choice.message.content for choice in answer.choices] == ["Yes"] * 3
    assert answer.usage.completion_tokens == 9
    assert len(raw.headers["x-ontopic-record-id"].split(",")) == 3


def test_a_stream_is_passed_on_as_it_comes(proxy: Proxy, asked: Callable[..., Any]) -> None:
    start, times, texts = time.monotonic(), [], []
    reply = Reply("In\n the\n app", parts={"usage": USAGE}, pause_s=0.2)
    for chunk in asked(reply, stream=True, stream_options={"include_usage": True}).parse():
        times.append(time.monotonic() - start)
        texts += [chunk.choices[0].delta.content or ""] if chunk.choices else []
        usage = chunk.usage
    assert "".join(texts) == newest(proxy).answer == "In\n the\n app"
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 3)
    assert times[-1] - times[1] > 0.4
    assert proxy.upstream.requests[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_and_finish_reasons_are_passed_on(
    proxy: Proxy, asked: Callable[..., Any], stream: bool
) -> None:
    token = {"token": "Yes", "logprob": -0.5, "bytes": [89, 101, 115]}
    choice = {"finish_reason": "length", "logprobs": {"content": [token | {"top_logprobs": [token]}]}}
    found = asked(Reply("Yes", choice=choice), logprobs=True, top_logprobs=1, stream=stream).parse()
    choices = [chunk.choices[0] for chunk in found] if stream else found.choices
    (given,) = [each.logprobs.content[0] for each in choices if each.logprobs]
    assert (given.token, given.logprob, given.top_logprobs[0].bytes) == ("Yes", -0.5, [89, 101, 115])
    assert choices[-1].finish_reason == "length"
    assert not newest(proxy).finished
    assert newest(proxy).completion_tokens == 1  # counted here, as the server does not


def test_the_servers_content_filter_is_told(proxy: Proxy, asked: Callable[..., Any]) -> None:
    answer = asked(Reply("", choice={"finish_reason": "content_filter"})).parse()
    assert answer.choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(f"Incorrect API key provided: {KEY}", status=401), 502, "upstream_refused"),
        (Reply(f"no access for {KEY}", status=403), 502, "upstream_refused"),
        (Reply("The model `gpt-4o` does not exist", status=404), 502, "upstream_model_not_found"),
        (Reply("slow down", status=429, headers={"retry-after": "7"}), 429, "overloaded"),
        (Reply("You exceeded your current quota (insufficient_quota)", status=429), 503, "upstream_quota"),
        (Reply(f"boom {KEY}", status=500), 502, "upstream_failed"),
        (Reply("loading", status=503, headers={"retry-after": "2.5"}), 503, "upstream_overloaded"),
        (Reply("gateway", status=504), 504, "timeout"),
        (Reply(f"This model's maximum context length is 8 tokens {KEY}", status=400), 400, None),
        (Reply("temperature is out of range", status=422), 400, None),
        (Reply(body=b"<html><title>Welcome</title></html>", content_type="text/html"), 502, "upstream_failed"),
        (Reply(body=b"{}"), 502, "upstream_failed"),
        (Reply(body=b'{"error": {"message": "no such model", "code": "model_not_found"}}'), 502, None),
    ],
    ids=lambda value: value.status if isinstance(value, Reply) else str(value),
)
def test_what_goes_wrong_there_is_an_error_of_openais_shape_without_the_key(
    asked: Callable[..., Any], reply: Reply, status: int, code: str | None, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        asked(reply, stream=stream)
    assert raised.value.status_code == status
    assert code is None or raised.value.code == code
    assert KEY not in raised.value.response.text
    assert "127.0.0.1" not in raised.value.response.text
    if "retry-after" in reply.headers:
        assert raised.value.response.headers["retry-after"] in ("7", "3")


def test_the_log_says_where_and_why_without_key_and_messages(proxy: Proxy, asked: Callable[..., Any]) -> None:
    secret = "my card number is the one that I told you of yesterday"
    with pytest.raises(openai.APIStatusError):
        asked(Reply(f"no: {secret} {KEY}", status=401), messages=[{"role": "user", "content": secret}])
    log = proxy.log.read_text()
    assert "the model's server did not answer: request failed: AuthenticationError 401: no: …" in log
    assert KEY not in log
    assert secret not in log


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_hangs_is_a_timeout(asked: Callable[..., Any], stream: bool) -> None:
    with pytest.raises(openai.InternalServerError, match="no answer within 1 s") as raised:
        asked(Reply("Yes", delay_s=1.5), stream=stream)
    assert raised.value.status_code == 504


def test_a_server_that_hangs_in_the_midst_of_a_stream_is_a_timeout(asked: Callable[..., Any]) -> None:
    texts = []
    with pytest.raises(openai.APIError, match="no answer within 1 s"):
        for chunk in asked(Reply("In\n the app", pause_s=1.3), stream=True).parse():
            texts.append(chunk.choices[0].delta.content or "")
    assert "".join(texts) == "In\n"


def test_a_server_that_is_not_there_is_an_error_and_too_many_wait_for_none() -> None:
    upstream = EndpointSettings(model="m", base_url="http://127.0.0.1:1/v1", max_retries=0)
    batch = UpstreamBatch(upstream, most_waiting=1)
    request = {"messages": MESSAGES}
    generation = Generation([0], Sampling(5), sent=request)
    with pytest.raises(OverloadedError):
        batch.submit([generation, Generation([0], Sampling(5), sent=request)])
    batch.submit([generation])
    with pytest.raises(RequestError, match="could not be reached") as raised:
        generation.done.result(10)
    assert (raised.value.status, raised.value.code) == (502, "upstream_failed")
    batch.close(5)
    with pytest.raises(RuntimeError, match="out of service"):
        batch.submit([generation])


def test_a_stream_that_breaks_off_ends_with_an_error_and_is_kept(proxy: Proxy, asked: Callable[..., Any]) -> None:
    texts = []
    with pytest.raises(openai.APIError, match="broke off"):
        for chunk in asked(Reply("In\n the\n app\n there", cut=True, pause_s=0.05), stream=True).parse():
            texts.append(chunk.choices[0].delta.content or "")
    wait_until(lambda: newest(proxy).answer == "".join(texts) == "In\n the\n")  # it is stored once nobody listens
    assert not newest(proxy).finished


def test_an_error_in_the_midst_of_a_stream_is_told(proxy: Proxy, asked: Callable[..., Any]) -> None:
    chunk = {"id": "1", "choices": [{"index": 0, "delta": {"content": "In"}, "finish_reason": None}]}
    error = {"error": {"message": "overloaded", "code": 503}}
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (chunk, error))
    with pytest.raises(openai.APIError, match="overloaded or starting"):
        list(asked(Reply(body=body, content_type="text/event-stream"), stream=True).parse())
    assert "the model's server did not answer: request failed: APIError" in proxy.log.read_text()


def test_a_server_that_does_not_count_streams_is_asked_without(proxy: Proxy, asked: Callable[..., Any]) -> None:
    def refuse(request: dict[str, Any]) -> Reply:
        unknown = "stream_options" in request
        return Reply("unknown field stream_options", status=422) if unknown else Reply("Yes\n I do")

    asked(Reply(), stream=True)
    proxy.upstream.reply = refuse
    stream = proxy.client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Yes\n I do"
    assert newest(proxy).completion_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_the_request_there(proxy: Proxy, stream: bool) -> None:
    begun = threading.Event()

    def slow(_: dict[str, Any]) -> Reply:
        begun.set()
        return Reply("\n".join("abcdefghij"), pause_s=0.1, delay_s=0 if stream else 0.5)

    proxy.upstream.reply = slow
    left, url = proxy.upstream.hung_up, f"{proxy.client.base_url}chat/completions"
    headers = {"authorization": f"Bearer {proxy.client.api_key}"}
    body = {"model": "gpt-4o", "messages": MESSAGES, "stream": stream}
    try:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=0.2, trust_env=False) as response:
            next(response.iter_bytes())
    except httpx.ReadTimeout:
        pass
    assert begun.wait(5)
    metrics = str(proxy.client.base_url).removesuffix("/v1/") + "/metrics"

    def is_idle() -> bool:
        page = httpx.get(metrics, headers=headers, trust_env=False).text
        return "ontopic_running 0.0" in page and "ontopic_queue_length 0.0" in page

    wait_until(is_idle)
    if stream:
        wait_until(lambda: proxy.upstream.hung_up > left)
        wait_until(lambda: newest(proxy).answer.startswith("a") and "j" not in newest(proxy).answer)
        assert not newest(proxy).finished


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({"tools": [{"type": "function"}]}, "tools must be"), ({"logit_bias": {"1": float("nan")}}, "JSON cannot hold")],
    ids=["tools", "nan"],
)
def test_what_cannot_be_passed_on_is_refused_here(proxy: Proxy, parameters: dict[str, Any], said: str) -> None:
    body = {"model": "gpt-4o", "messages": MESSAGES} | parameters
    headers = {"authorization": f"Bearer {proxy.client.api_key}", "content-type": "application/json"}
    url = f"{proxy.client.base_url}chat/completions"
    answered = httpx.post(url, content=json.dumps(body), headers=headers, trust_env=False)
    assert answered.status_code == 400
    assert said in answered.json()["error"]["message"]


def test_the_document_says_what_is_passed_on(proxy: Proxy) -> None:
    url = str(proxy.client.base_url).removesuffix("/v1/") + "/openapi.json"
    page = httpx.get(url, headers={"authorization": f"Bearer {proxy.client.api_key}"}, trust_env=False)
    properties = page.json()["components"]["schemas"]["ChatRequest"]["properties"]
    assert properties["model"] == {"enum": ["ontopic-gardening", "gpt-4o"]}
    assert properties["logit_bias"]["anyOf"][0] == {}
    assert properties["tools"]["anyOf"][0] == {"enum": [[]]}


def test_the_proxy_can_be_asked_from_the_command_line(proxy: Proxy) -> None:
    proxy.upstream.reply = lambda request: Reply("Yes." if request["model"] == "gpt-4o" else "no verdict")
    said = CliRunner().invoke(run.app, ["ask", "Can I prune roses?", *proxy.options])
    assert said.output.startswith("Yes.\n\nversion gpt-4o, verdict unjudged: "), said


def test_the_service_has_no_torch(proxy: Proxy) -> None:
    workers = proxy.process.children(recursive=True)
    assert workers
    for worker in workers:
        assert not [each.path for each in worker.memory_maps() if "torch" in each.path or "transformers" in each.path]
