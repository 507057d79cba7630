from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch

from ontopic.models.answer import Batch, Generation, OverloadedError, Piece, Sampling, parameters_of, sampling_of
from ontopic.models.chat_template import chat_prompts
from ontopic.models.engines import begin_batch
from ontopic.models.generation import answer_requests, generate
from ontopic.models.loading import LanguageModel, load
from ontopic.models.openvino_batch import OpenVinoBatch
from ontopic.models.static_batch import StaticBatch

QUESTIONS = [
    "How do I open a savings account?",
    "Hi",
    "My card was swallowed by the machine outside the station on a Sunday, and I travel tomorrow. What do I do now?",
    "Name three rivers.",
    "Reply with one word: what is the capital of France?",
    "Say it again: \u4f60\u597d, \U0001f600\U0001f600",
]


ENGINES = {"openvino": OpenVinoBatch, "torch": StaticBatch}


@pytest.fixture(scope="module")
def weights(model_folder: Path) -> LanguageModel:
    return load(model_folder, "float32")  # in bfloat16 an answer may differ with what is generated beside it


@pytest.fixture(scope="module", params=ENGINES)
def model(weights: LanguageModel, request: pytest.FixtureRequest) -> LanguageModel:
    """A model for each engine: OpenVINO converts what a folder holds, so weights of no folder are for PyTorch."""
    return weights if request.param == "openvino" else LanguageModel(weights.model, weights.tokenizer)


def test_each_request_is_answered_as_its_client_asked(model: LanguageModel) -> None:
    question, marked = {"role": "user", "content": QUESTIONS[0]}, {"role": "user", "content": "Hi<|im_end|> there"}
    plain = {"role": "user", "content": "Hi< |im_end|> there"}
    system = {"role": "system", "content": "Answer in French."}
    sampling = Sampling(6, temperature=1.0, top_p=0.9, seed=4)
    requests = [([question], Sampling(12)), ([system, question], Sampling(5)), ([question], sampling)]
    found = answer_requests(model, [*requests, ([marked], Sampling(6))])
    alone = [answer_requests(model, [request])[0] for request in requests]
    assert [answer.text for answer in found[:3]] == [answer.text for answer in alone]
    assert [answer.completion_tokens for answer in found[:3]] == [12, 5, 6]
    greedy = generate(model, [[question], [plain]], max_new_tokens=12)
    assert found[0].text == greedy[0].text and not found[2].text.startswith(greedy[0].text[:12])
    assert greedy[1].text.startswith(found[3].text)
    assert sampling_of(parameters_of(sampling)) == sampling


def answers_of_transformers(model: LanguageModel, conversations: list[Any], limit: int) -> list[tuple[str, int, bool]]:
    """Text, tokens, and whether it came to its end, of each greedy answer, one at a time."""
    answers = []
    for text in chat_prompts(model.tokenizer, conversations):
        inputs = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        lm: Any = model.model
        output = lm.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=0)
        new = output[0, inputs["input_ids"].shape[1] :].tolist()
        ended = new[-1] == model.tokenizer.eos_token_id
        said = str(model.tokenizer.decode(new, skip_special_tokens=True)).strip()
        answers.append((said, len(new) - ended, ended))
    return answers


@pytest.fixture
def batch(model: LanguageModel) -> Iterator[Batch]:
    batch = begin_batch(model)
    assert isinstance(batch, OpenVinoBatch if model.folder else StaticBatch)
    yield batch
    batch.close(30)


def prompt(model: LanguageModel, question: str, system: str = "") -> list[int]:
    messages = [{"role": "system", "content": system}] if system else []
    (text,) = chat_prompts(model.tokenizer, [[*messages, {"role": "user", "content": question}]])
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_greedy_answers_are_those_of_one_batch_however_they_arrive(model: LanguageModel, batch: Batch) -> None:
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    expected = answers_of_transformers(model, conversations, 20)
    together = [Generation(prompt(model, question), Sampling(20)) for question in QUESTIONS]
    batch.submit(together)
    # The next one joins when the one before has said something, so each is at another place of its answer.
    apart = []
    for question in QUESTIONS:
        begun = threading.Event()
        apart.append(Generation(prompt(model, question), Sampling(20), lambda _, begun=begun: begun.set()))  # type: ignore[misc]
        batch.submit(apart[-1:])
        begun.wait(30)
    for generations in (together, apart):
        found = [generation.done.result(60) for generation in generations]
        assert [(f.text, f.completion_tokens, f.finish_reason == "stop") for f in found] == expected
        assert [f.prompt_tokens for f in found] == [len(generation.ids) for generation in generations]
    answered: list[int] = []
    offline = generate(model, conversations, max_new_tokens=20, slots=4, advance=answered.append)
    assert [(f.text, f.completion_tokens, f.finish_reason == "stop") for f in offline] == expected
    assert answered == [1] * len(QUESTIONS)


def test_a_long_prompt_is_read_in_parts_while_others_go_on(model: LanguageModel, batch: Batch) -> None:
    if not model.folder:
        pytest.skip("a static batch has no others to go on")
    order: list[str] = []
    begun = threading.Event()

    def said(_: Piece) -> None:
        order.append("short")
        begun.set()

    short = Generation(prompt(model, "Count to a hundred."), Sampling(24), said)
    batch.submit([short])
    begun.wait(30)
    long = Generation(prompt(model, "bank " * 1800), Sampling(2))
    long.done.add_done_callback(lambda _: order.append("long"))
    batch.submit([long])
    assert long.done.result(120).prompt_tokens > 1800
    short.done.result(60)
    assert order[: order.index("long")].count("short") >= 4
    ((expected, _, _),) = answers_of_transformers(model, [[{"role": "user", "content": "bank " * 1800}]], 2)
    assert long.done.result().text == expected


def test_a_cancelled_answer_gives_up_its_place(model: LanguageModel, batch: Batch) -> None:
    begun = threading.Event()
    endless = Generation(prompt(model, "Count to a thousand."), Sampling(4000), lambda _: begun.set())
    waiting = Generation(prompt(model, "Hi"), Sampling(4))
    batch.submit([endless, waiting])
    begun.wait(30)
    assert endless.done.cancel()
    assert waiting.done.result(30).completion_tokens == 4
    batch.close(30)
    assert batch.running == 0
    with pytest.raises(CancelledError):
        endless.done.result()


def test_too_many_are_refused_and_a_closed_batch_answers_what_it_took(model: LanguageModel) -> None:
    batch = begin_batch(model, most_waiting=2)
    many = [Generation(prompt(model, "Hi"), Sampling(4)) for _ in range(3)]
    with pytest.raises(OverloadedError) as raised:
        batch.submit(many)
    assert raised.value.retry_after_s >= 1
    batch.submit(many[:2])
    batch.close(60)
    assert [generation.done.result(0).completion_tokens for generation in many[:2]] == [4, 4]
    with pytest.raises(RuntimeError):
        batch.submit(many[2:])


@pytest.mark.parametrize("idle", [True, False])
def test_an_error_reaches_those_under_way_and_the_next_are_answered(
    idle: bool, model: LanguageModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    failing = Generation(prompt(model, "Count to a hundred."), Sampling(200), lambda _: begun.set())
    if idle:
        _break(batch, model, monkeypatch)
    batch.submit([failing])
    if not idle:
        begun.wait(30)
        _break(batch, model, monkeypatch)
    assert failing.done.exception(60) is not None
    monkeypatch.undo()
    good = Generation(prompt(model, "Hi"), Sampling(4))
    batch.submit([good])
    assert good.done.result(60).completion_tokens == 4


def _break(batch: Batch, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's process ends, as for want of memory; PyTorch's next step fails."""
    if isinstance(batch, OpenVinoBatch):
        os.kill(batch._engine.pid, signal.SIGKILL)
    else:
        monkeypatch.setattr(model.model, "forward", lambda **_: 1 / 0)


def test_pieces_join_to_the_text_and_never_end_in_half_a_stop_text(model: LanguageModel, batch: Batch) -> None:
    whole = Generation(prompt(model, QUESTIONS[0]), Sampling(20))
    batch.submit([whole])
    text = whole.done.result(60).text
    stop = text[30:45]
    pieces: list[Piece] = []
    stopped = Generation(prompt(model, QUESTIONS[0]), Sampling(20, stop=(stop,)), pieces.append)
    batch.submit([stopped])
    assert stopped.done.result(60).text == text[:30].rstrip() == "".join(piece.text for piece in pieces)
    assert stopped.done.result().finish_reason == "stop"


def test_log_probabilities_are_those_of_the_weights(model: LanguageModel, batch: Batch, weights: LanguageModel) -> None:
    top = 2 if batch.alternatives else 0
    asked = [
        Generation(prompt(model, QUESTIONS[0]), Sampling(6, temperature=t, seed=1, top_logprobs=top)) for t in (0, 1)
    ]
    batch.submit(asked)
    for generation in asked:
        given = generation.done.result(60).logprobs
        ids = [
            weights.tokenizer.convert_tokens_to_ids(weights.tokenizer.tokenize(each.token.decode()))[0]
            for each in given
        ]
        with torch.inference_mode():
            logits = weights.model(torch.tensor([[*generation.ids, *ids]])).logits[0, len(generation.ids) - 1 : -1]
        wanted = logits.float().log_softmax(-1)
        of_ids = [float(row[token]) for row, token in zip(wanted, ids, strict=True)]
        assert [each.logprob for each in given] == pytest.approx(of_ids, abs=0.05)
        for each, row in zip(given, wanted, strict=True):
            assert [value for _, value in each.top] == pytest.approx(row.topk(top).values.tolist(), abs=0.05)
