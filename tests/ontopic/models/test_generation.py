from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from ontopic.models.answer import Generation, OverloadedError, Piece, Sampling, parameters_of, sampling_of
from ontopic.models.chat_template import chat_prompts
from ontopic.models.continuous_batch import ContinuousBatch
from ontopic.models.generation import answer_requests, generate
from ontopic.models.loading import LanguageModel, load

QUESTIONS = [
    "How do I open a savings account?",
    "Hi",
    "My card was swallowed by the machine outside the station on a Sunday, and I travel tomorrow. What do I do now?",
    "Name three rivers.",
    "Reply with one word: what is the capital of France?",
    "Say it again: \u4f60\u597d, \U0001f600\U0001f600",
]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LanguageModel:
    return load(model_folder, "float32")  # in bfloat16 an answer may differ with what is generated beside it


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
def batch(model: LanguageModel) -> Iterator[ContinuousBatch]:
    batch = ContinuousBatch(model)
    yield batch
    batch.close(30)


def prompt(model: LanguageModel, question: str, system: str = "") -> list[int]:
    messages = [{"role": "system", "content": system}] if system else []
    (text,) = chat_prompts(model.tokenizer, [[*messages, {"role": "user", "content": question}]])
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_greedy_answers_are_those_of_one_batch_however_they_arrive(
    model: LanguageModel, batch: ContinuousBatch
) -> None:
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


def test_a_shared_beginning_is_read_once_and_changes_nothing(model: LanguageModel, batch: ContinuousBatch) -> None:
    system = "You are the assistant of a bank. " * 20
    prompts = [prompt(model, question, system) for question in QUESTIONS[:3]]
    read: list[int] = []
    forward = model.model.forward

    def counting(*args: Any, **options: Any) -> Any:
        read.append(options["input_ids"].shape[1])
        return forward(*args, **options)

    answers = []
    model.model.forward = counting  # type: ignore[method-assign]
    try:
        for ids in prompts:
            generation = Generation(ids, Sampling(8))
            batch.submit([generation])
            answers.append(generation.done.result(60).text)
    finally:
        del model.model.forward
    first, second, third = [n for n in read if n > 1]
    assert (first, second) == (len(prompts[0]), len(prompts[1]))
    assert third < len(prompts[2]) / 4
    messages = [[{"role": "system", "content": system}, {"role": "user", "content": q}] for q in QUESTIONS[:3]]
    assert answers == [said for said, _, _ in answers_of_transformers(model, messages, 8)]


def test_a_long_prompt_is_read_in_parts_while_others_go_on(model: LanguageModel, batch: ContinuousBatch) -> None:
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


def test_a_cancelled_answer_gives_up_its_place(model: LanguageModel, batch: ContinuousBatch) -> None:
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
    batch = ContinuousBatch(model, most_waiting=2)
    many = [Generation(prompt(model, "Hi"), Sampling(4)) for _ in range(3)]
    with pytest.raises(OverloadedError) as raised:
        batch.submit(many)
    assert raised.value.retry_after_s >= 1
    batch.submit(many[:2])
    batch.close(60)
    assert [generation.done.result(0).completion_tokens for generation in many[:2]] == [4, 4]
    with pytest.raises(RuntimeError):
        batch.submit(many[2:])


def test_an_error_reaches_those_under_way_and_the_next_are_answered(
    model: LanguageModel, batch: ContinuousBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Generation(prompt(model, "Hi"), Sampling(4))
    with monkeypatch.context() as patch:
        patch.setattr(model.model, "forward", lambda **_: 1 / 0)
        batch.submit([failing])
        assert isinstance(failing.done.exception(30), ZeroDivisionError)
    good = Generation(prompt(model, "Hi"), Sampling(4))
    batch.submit([good])
    assert good.done.result(30).completion_tokens == 4


def test_pieces_join_to_the_text_and_never_end_in_half_a_stop_text(
    model: LanguageModel, batch: ContinuousBatch
) -> None:
    whole = Generation(prompt(model, QUESTIONS[0]), Sampling(20))
    batch.submit([whole])
    text = whole.done.result(60).text
    stop = text[30:45]
    pieces: list[Piece] = []
    stopped = Generation(prompt(model, QUESTIONS[0]), Sampling(20, stop=(stop,)), pieces.append)
    batch.submit([stopped])
    assert stopped.done.result(60).text == text[:30].rstrip() == "".join(piece.text for piece in pieces)
    assert stopped.done.result().finish_reason == "stop"
