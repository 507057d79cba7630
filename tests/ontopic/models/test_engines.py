from __future__ import annotations

import json
import logging
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from whole_models import tiny_model

from ontopic.errors import UserError
from ontopic.models import openvino, openvino_batch
from ontopic.models.engines import begin_batch, open_beside
from ontopic.models.generation import generate
from ontopic.models.loading import load, open_model
from ontopic.models.openvino_batch import OpenVinoBatch
from ontopic.models.sentence_encoder import load_sentence_encoder
from ontopic.models.static_batch import StaticBatch

ASKED = [[{"role": "user", "content": "How do I open a savings account?"}]]


def test_what_openvino_cannot_take_pytorch_answers_and_the_log_says_so(
    gemma_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = open_model(gemma_folder, "float32")
    with caplog.at_level(logging.WARNING):
        batch = begin_batch(model)
    batch.close(5)
    assert isinstance(batch, StaticBatch)
    assert "PyTorch generates, several times slower" in caplog.text and "'gemma'" in caplog.text
    (said,) = generate(model, ASKED, max_new_tokens=4)
    assert said.completion_tokens == 4
    beside = open_beside(model, gemma_folder)
    assert beside.model is not model.model and beside.model.get_input_embeddings().weight.data_ptr() == (
        model.model.get_input_embeddings().weight.data_ptr()
    )
    with pytest.raises(UserError, match=r"model\.precision is int8, for which OpenVINO can't take this model"):
        begin_batch(open_model(gemma_folder, "int8"))


@pytest.mark.parametrize(("limit", "threads"), [("1", "2"), ("3", "3")])
def test_a_container_s_limit_of_cpus_bounds_openvino_s_threads(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, threads: str
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", limit)  # joblib reads a container's limit likewise
    given: list[str] = []

    def started(command: list[str], **more: object) -> object:
        given.append(json.loads(command[-1])["properties"]["INFERENCE_NUM_THREADS"])
        return popen(command, **more)

    popen = subprocess.Popen
    monkeypatch.setattr(openvino_batch.subprocess, "Popen", started)
    engine = openvino_batch.open_engine(open_model(model_folder, "float32"))
    assert engine is not None and given == [threads]
    engine.close()


def test_a_model_is_converted_once_and_few_are_kept(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_model(model_folder, "float32")
    batch = begin_batch(model)
    batch.close(5)
    assert isinstance(batch, OpenVinoBatch)
    written: list[Path] = []

    def write(folder: Path, into: Path, *, precision: str) -> None:
        written.append(folder)
        (into / "openvino_model.xml").write_text(precision)

    monkeypatch.setattr(openvino, "write_openvino", write)
    kept = openvino.converted(model_folder, model.digest, precision="float32")
    assert written == [] and (kept / "openvino_model.bin").is_file()
    monkeypatch.setenv("ONTOPIC_CACHE", str(tmp_path / "other"))
    made = [openvino.converted(model_folder, digest * 64, precision="auto") for digest in "abcdef"]
    assert len(written) == 6 and [place.is_dir() for place in made] == [False, False, True, True, True, True]
    again = openvino.converted(model_folder, "c" * 64, precision="bfloat16")  # stored as for "auto"
    assert again == made[2] and len(written) == 6
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONTOPIC_CACHE", str(tmp_path / "file"))  # as a home that is none, or may only be read
    own = openvino.converted(model_folder, "g" * 64, precision="auto")
    assert (own / "openvino_model.xml").is_file() and own == openvino.converted(
        model_folder, "g" * 64, precision="auto"
    )


def test_of_two_who_convert_at_once_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(folder: Path, into: Path, *, precision: str) -> None:
        written.append(into)
        time.sleep(0.2)
        (into / "openvino_model.xml").write_text(precision)

    monkeypatch.setattr(openvino, "write_openvino", write)
    monkeypatch.setenv("ONTOPIC_CACHE", str(tmp_path))
    with ThreadPoolExecutor(2) as pool:
        places = list(pool.map(lambda _: openvino.converted(tmp_path, "a" * 64, precision="auto"), range(2)))
    assert len(written) == 1 and places[0] == places[1] and (places[0] / "openvino_model.xml").is_file()


def test_weights_that_are_read_late_are_those_that_are_read_at_once(model_folder: Path) -> None:
    late, now = open_model(model_folder), load(model_folder)
    assert late.config.max_position_embeddings == now.config.max_position_embeddings
    assert late.end_tokens == now.end_tokens == {late.tokenizer.eos_token_id}
    assert late.model.dtype == now.model.dtype and late.digest == now.digest


def test_openvino_says_nothing_to_anybody(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its telemetry is on where nobody declined; what we call of it sends none."""
    said: list[object] = []
    for name in ("send_event", "start_session", "end_session", "send_error", "send_stack_trace"):
        monkeypatch.setattr(f"openvino_telemetry.Telemetry.{name}", lambda *of, **more: said.append(of))
    folder = tiny_model(tmp_path / "tiny", model_folder)
    (tmp_path / "out").mkdir()
    openvino.write_openvino(folder, tmp_path / "out")
    load_sentence_encoder().encode(["How do I open a savings account?"])
    assert said == []
