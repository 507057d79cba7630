"""GGUF files as two other readers read them: Transformers, and llama.cpp where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import small_model, small_tokenizer
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM

from ontopic.config.model_settings import FilePrecision
from ontopic.errors import UserError
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import load

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 128},  # as Transformers takes it to be, whatever the file says
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
QUESTION = "How do I freeze my card? It's  1234.56 EUR for Zoë's\n\n  account, we'll see: № 77!"


def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    """Of each next token, of shape (tokens, vocabulary)."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def written(folder: Path, precision: FilePrecision) -> Path:
    path = folder / f"{precision}.gguf"
    write_gguf(folder, path, precision=precision, name="small")
    return path


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_model(kind: str, precision: FilePrecision, tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model", kind, **KINDS[kind])
    ours = load(folder, "float32")
    path = written(folder, precision)
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    ids = ours.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    assert len(ids) > 20
    difference = (log_probabilities(ours.model, ids) - log_probabilities(theirs, ids)).abs().max()
    assert difference < (1e-4 if precision == "float32" else 0.05)


@pytest.mark.parametrize("kind", [*KINDS, "stretched"])
def test_llama_cpp_reads_the_same_model_and_the_same_tokens(kind: str, tmp_path: Path) -> None:
    more = {"rope_parameters": STRETCHED} if kind == "stretched" else KINDS[kind]
    folder = small_model(tmp_path / "model", "llama" if kind == "stretched" else kind, **more)
    ours = load(folder, "float32")
    # Beyond the positions that Llama 3 leaves as they are; llama.cpp tells nothing of a token without a whole text.
    for prompt in (QUESTION * 3 + str(number) for number in range(9)):
        ids = ours.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ours_at_end = log_probabilities(ours.model, ids)[-1]
        text = ours.tokenizer.decode([int(ours_at_end.argmax())], skip_special_tokens=True)
        if text and "\ufffd" not in text:
            break
    said = llama_cpp(written(folder, "float32"), prompt)
    assert said["usage"]["prompt_tokens"] == len(ids)
    (first,) = said["choices"][0]["logprobs"]["content"]
    assert first["id"] == int(ours_at_end.argmax())
    for each in first["top_logprobs"]:
        assert each["logprob"] == pytest.approx(float(ours_at_end[each["id"]]), abs=0.05)


def llama_cpp(path: Path, prompt: str) -> dict[str, Any]:
    """What llama.cpp says comes next, with its ten likeliest tokens."""
    xllamacpp = pytest.importorskip("xllamacpp")
    given = xllamacpp.CommonParams()
    given.model.path, given.n_ctx, given.n_parallel, given.warmup, given.verbosity = str(path), 512, 1, False, -1
    given.cpuparams.n_threads = given.cpuparams_batch.n_threads = 1
    asked = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 10}
    found: dict[str, Any] = xllamacpp.Server(given).handle_completions(asked)
    return found


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("gpt-2", pre_tokenizers.ByteLevel(add_prefix_space=False)),
        (
            "smollm",
            pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            ),
        ),
    ],
)
def test_the_way_of_cutting_texts_has_llama_cpp_s_name(name: str, cut: Any, tmp_path: Path) -> None:
    path = written(small_model(tmp_path / "model", tokenizer=small_tokenizer(cut)), "float32")
    assert gguf.GGUFReader(path).fields["tokenizer.ggml.pre"].contents() == name


@pytest.mark.parametrize(
    ("kind", "more", "cut", "said"),
    [
        ("gemma", {}, None, "models of type 'gemma'"),
        ("mistral", {"sliding_window": 32}, None, "a sliding window of attention"),
        ("llama", {"hidden_act": "gelu"}, None, "the activation 'gelu'"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, None, "positions of"),
        ("llama", {}, pre_tokenizers.Split(Regex("[a-z]+"), "isolated"), "the way in which its tokenizer cuts texts"),
    ],
)
def test_what_would_be_read_otherwise_is_refused(
    kind: str, more: dict[str, Any], cut: Any, said: str, tmp_path: Path
) -> None:
    folder = small_model(tmp_path / "model", kind, tokenizer=small_tokenizer(cut), **more)
    with pytest.raises(UserError, match=f"{said}.* cannot be written as GGUF here, which knows llama, mistral"):
        written(folder, "float32")


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    folder = small_model(tmp_path / "model")
    weights = {name: tensor * 1e6 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not fit into float16; write it in float32"):
        written(folder, "float16")
