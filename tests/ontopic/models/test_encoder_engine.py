"""The sentence encoder's engines: they give the vectors that Transformers' model has, whatever else is encoded."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from ontopic.models.encoder_engine import EncoderEngine, Floats, OpenVINOEngine, TorchEngine, encoder_engine
from ontopic.models.sentence_encoder import SentenceEncoder, Tokens, load_sentence_encoder

TEXTS = ("", "boil an egg", "is there a fee for that", "how do i freeze my card", "word " * 600)
ENGINES = (OpenVINOEngine, TorchEngine)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_sentence_encoder()


@pytest.fixture(scope="module", params=[False, True], ids=["fp32", "bf16"])
def bfloat16(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, encoder: SentenceEncoder, bfloat16: bool) -> EncoderEngine:
    made: EncoderEngine = request.param(encoder.model, bfloat16=bfloat16)
    return made


def batch(tokens: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    own = [[1] * each.own + [0] * (len(each.ids) - each.own) for each in tokens]
    return np.array([each.ids for each in tokens]), np.array(own)


def test_vectors_are_those_of_the_model(encoder: SentenceEncoder, engine: EncoderEngine, bfloat16: bool) -> None:
    contexts = [(), ("user: how do i cook a soup", "assistant: Simmer it."), (), (), ("user: hello " * 90,)]
    tokens = encoder.tokens(TEXTS, 512, contexts=contexts)
    with torch.inference_mode():
        expected: list[Floats] = []
        for ids, own in tokens:
            kind = torch.tensor([[0] * own + [1] * (len(ids) - own)])
            states = encoder.model(input_ids=torch.tensor([ids]), token_type_ids=kind).last_hidden_state[0, :own]
            expected.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    found = [vectors[0] for vectors in engine.vectors(batch([each]) for each in tokens)]
    assert np.allclose(found, expected, atol=4e-3 if bfloat16 else 1e-5)


def test_openvino_vectors_are_the_same_to_the_last_bit_whatever_is_beside_them(
    encoder: SentenceEncoder, bfloat16: bool
) -> None:
    engine = OpenVINOEngine(encoder.model, bfloat16=bfloat16)
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    texts = [f"how do i send {a} {b} pounds" for a in numbers for b in numbers]
    tokens = encoder.tokens(texts, 512)
    assert len({len(each.ids) for each in tokens}) == 1
    (together,) = engine.vectors([batch(tokens)])
    alone = [vectors[0] for vectors in engine.vectors(batch([each]) for each in tokens[::9])]
    assert np.array_equal(together[::9], alone)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are listed in /proc")
def test_openvino_binds_no_thread_to_a_core_which_other_processes_would_bind_theirs_to(
    encoder: SentenceEncoder,
) -> None:
    engine = OpenVINOEngine(encoder.model, bfloat16=False)
    long = batch(encoder.tokens(["word " * 600] * 8, 512))
    everywhere, bound = os.sched_getaffinity(0), set[frozenset[int]]()
    computing = threading.Thread(target=lambda: list(engine.vectors([long] * 4)))
    computing.start()
    while computing.is_alive():
        for task in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has just ended
                bound.add(frozenset(os.sched_getaffinity(int(task.name))))
    assert bound == {frozenset(everywhere)}


def test_batches_come_back_in_their_order_and_are_read_a_few_ahead(engine: EncoderEngine) -> None:
    read: list[int] = []

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for length in range(3, 13):
            read.append(length)
            yield np.full((length, length), 2000 + length), np.ones((length, length), dtype=np.int64)

    shapes = []
    for vectors in engine.vectors(batches()):
        shapes.append(len(vectors))
        assert len(read) - len(shapes) <= torch.get_num_threads() + 1
    assert shapes == list(range(3, 13))
    assert list(engine.vectors([])) == []


def test_without_openvino_it_runs_on_pytorch_and_says_so(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(encoder_engine(encoder.model, bfloat16=False), OpenVINOEngine)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING):
        assert isinstance(encoder_engine(encoder.model, bfloat16=False), TorchEngine)
    assert "runs on PyTorch, which is slower, as OpenVINO can't run it" in caplog.text


def test_a_model_that_the_graph_is_not_written_for_runs_on_pytorch(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(encoder.model.config, "hidden_act", "relu")
    assert isinstance(encoder_engine(encoder.model, bfloat16=False), TorchEngine)
    assert "it is bert with relu" in caplog.text
