"""What of benchmarks/gpu.py a CPU can run, on a model of Gemma's shape with random weights."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT

pytest.importorskip("bitsandbytes", reason="the extra gpu is not installed")

VLLM = '''#!{python}
"""Stands in for vLLM's server, which is not installed here."""
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, {tests!r})
import json
from loopback import Reply, events

arguments = sys.argv[1:]
assert arguments[0] == "serve" and "--served-model-name" in arguments

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b"".join(events(Reply("no answer of ours"), request)))

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(arguments[arguments.index("--port") + 1])), Handler).serve_forever()
'''


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Any]:
    """The scripts ``gpu`` and ``orpo``, as modules."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import gpu
        import orpo

        yield gpu, orpo
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def as_llama(gemma_folder: Path, folder: Path) -> Path:
    """The same tokenizer with a small model of Llama's shape, whose norms give what their weights are in."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = json.loads((gemma_folder / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    shutil.copytree(gemma_folder, folder, ignore=shutil.ignore_patterns("*config.json", "*.safetensors"))
    shutil.copy(gemma_folder / "tokenizer_config.json", folder)
    LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("shape", "precision"), [("gemma", "bfloat16"), ("gemma", "nf4"), ("llama", "nf4")])
def test_all_trainers_take_the_same_steps(
    benchmarks: Any, gemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str, precision: str
) -> None:
    _, orpo = benchmarks
    folder = gemma_folder if shape == "gemma" else as_llama(gemma_folder, tmp_path / "llama")
    trainers = {
        side: orpo.made_trainer(folder, precision, 4, folder=str(tmp_path), side=side, share=0.8) for side in orpo.SIDES
    }
    orpo.compare(trainers, orpo.batches_of(trainers["ours"], 2))
    said = capsys.readouterr().out
    differences = re.findall(r"largest difference in loss (\S+);", said)
    assert len(differences) == 2 and all(float(difference) < 0.02 for difference in differences)  # in bfloat16
    assert "stock: " in said and "ours: " in said


def test_a_whole_folder_is_left_of_training_in_4_bits(benchmarks: Any, gemma_folder: Path, tmp_path: Path) -> None:
    gpu, _ = benchmarks
    settings = gpu.load_settings(ROOT / "configs" / "gpu.yaml").training
    training = settings.model_copy(update={"gradient_accumulation": 1, "max_steps": 2})
    folder = gpu.exported(gemma_folder, tmp_path, training, pairs=4)
    assert {"config.json", "model.safetensors", "chat_template.jinja"} <= {path.name for path in folder.iterdir()}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d, .+; torch .+, bitsandbytes .+", gpu.heading())


@pytest.mark.slow
def test_servers_are_compared_on_the_same_folder(
    benchmarks: Any, gemma_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu, _ = benchmarks
    vllm = tmp_path / "vllm"
    vllm.write_text(VLLM.format(python=sys.executable, tests=str(ROOT / "tests")))
    vllm.chmod(0o755)
    questions = ["how do I block my card", "where is my pin", "tell me a joke"]
    gpu.compare_servers(gemma_folder, str(vllm), questions, clients=2, ends=time.monotonic() + 60)
    gpu.compare_servers(gemma_folder, str(tmp_path / "nothing"), questions[:1], clients=1, ends=time.monotonic() + 60)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("ours | ") and lines[1].endswith("| 3 of 3")
    assert lines[2].startswith("vLLM | ") and lines[2].endswith("| 0 of 3")
    assert lines[-1].startswith("vLLM | failed: ")
