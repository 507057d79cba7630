"""A whole model as one GGUF file, which llama.cpp, Ollama and OpenVINO GenAI read.

Tensors are named and laid out as llama.cpp's own ``convert_hf_to_gguf.py`` does it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ontopic.config.model_settings import FilePrecision
from ontopic.errors import UserError
from ontopic.models.loading import conversational_tokenizer

# By our precisions: what the file says that it mostly holds, and of what type its matrices are.
_TYPES = {
    "float32": (gguf.LlamaFileType.ALL_F32, gguf.GGMLQuantizationType.F32),
    "float16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "int8": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
    "int4": (gguf.LlamaFileType.MOSTLY_Q4_0, gguf.GGMLQuantizationType.Q4_0),
}

# By Transformers' model types. llama.cpp turns the halves of a head in these "llama" models by pairs of neighbours.
_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is cut before its bytes are paired, by what llama.cpp calls it.
_CUTS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _WORDS % "{1,3}"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "use_regex": False},
    ],
    "qwen2": [
        {"type": "Split", "pattern": {"Regex": _WORDS % ""}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "use_regex": False},
    ],
}


def write_gguf(folder: Path, path: Path, *, precision: FilePrecision, name: str) -> None:
    """Write the model in ``folder`` to ``path``, a tensor at a time; vectors are float32 in any precision.

    Args:
        folder: a whole model of a Llama, Mistral, Qwen 2 or Qwen 3 architecture, in safetensors.
        precision: of the matrices: ``int8`` and ``int4`` are llama.cpp's Q8_0 and Q4_0.
        name: what the file says that the model is called.

    Raises:
        UserError: the model's architecture, its positions or its tokenizer have no like in this format here, or its
            weights do not fit into float16.
        OSError: the file can't be written.
    """
    config = AutoConfig.from_pretrained(folder)
    if config.model_type not in _ARCHITECTURES:
        raise _refused(folder, f"models of type {config.model_type!r}")
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[_ARCHITECTURES[config.model_type]])
    with ExitStack() as opened, closing(writer):
        files = [opened.enter_context(safe_open(file, "pt")) for file in sorted(folder.glob("*.safetensors"))]
        shapes = {key: tuple(file.get_slice(key).get_shape()) for file in files for key in file.keys()}  # noqa: SIM118
        _add_settings(writer, config, folder=folder)
        writer.add_name(name)
        writer.add_file_type(_TYPES[precision][0])
        rows = shapes["model.embed_tokens.weight"][0]
        _add_tokens(writer, conversational_tokenizer(folder), rows=rows, folder=folder)
        names = _tensor_names(list(shapes), config, folder=folder)
        factors = _rope_factors(config, folder)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for key, shape in shapes.items():
            kind = _kind(shape, precision, key=key, folder=folder)
            stored = gguf.quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(names[key], stored, np.dtype(np.uint8), int(np.prod(stored)), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if factors is not None:
            writer.write_tensor_data(factors)
        for key, tensor in _tensors(files):
            writer.write_tensor_data(_written(tensor, key, config=config, precision=precision, folder=folder))


def _refused(folder: Path, what: str) -> UserError:
    known = ", ".join(_ARCHITECTURES)
    return UserError(
        f"{folder}: {what} cannot be written as GGUF here, which knows {known} with byte-level tokenizers; export "
        "safetensors, and convert them with llama.cpp's convert_hf_to_gguf.py"
    )


def _add_settings(writer: gguf.GGUFWriter, config: Any, *, folder: Path) -> None:
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings and getattr(config, "use_sliding_window", True):
        raise _refused(folder, "a sliding window of attention")
    if config.hidden_act != "silu":
        raise _refused(folder, f"the activation {config.hidden_act!r}")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _rope_factors(config: Any, folder: Path) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """By what each frequency is divided, of shape (half a head,), where the positions are stretched as Llama 3's."""
    kind = config.rope_parameters.get("rope_type", "default")
    if kind == "default":
        return None
    if kind != "llama3":
        raise _refused(folder, f"positions of type {kind!r}")
    stretched, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    half = stretched.shape[0]
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(half, dtype=torch.float32) / half)
    return (plain / stretched).numpy()


def _tensor_names(keys: list[str], config: Any, *, folder: Path) -> dict[str, str]:
    known = gguf.get_tensor_name_map(_ARCHITECTURES[config.model_type], config.num_hidden_layers)
    names = {key: known.get_name(key, try_suffixes=(".weight", ".bias")) for key in keys}
    unknown = [key for key, name in names.items() if name is None]
    if unknown:
        raise _refused(folder, f"the tensor {unknown[0]!r}")
    return {key: name for key, name in names.items() if name is not None}


def _tensors(files: list[Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for file in files:
        for key in file.keys():  # noqa: SIM118
            yield key, file.get_tensor(key)


def _kind(shape: tuple[int, ...], precision: FilePrecision, *, key: str, folder: Path) -> gguf.GGMLQuantizationType:
    """Of what type a tensor is stored: vectors are float32 in any precision."""
    kind = _TYPES[precision][1] if len(shape) > 1 else gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if shape[-1] % block:
        raise UserError(f"{folder}: the rows of {key!r} are no multiple of {block} long; take float16")
    return kind


def _written(
    tensor: torch.Tensor, key: str, *, config: Any, precision: FilePrecision, folder: Path
) -> np.ndarray[Any, Any]:
    values = tensor.to(torch.float32).numpy()
    if _ARCHITECTURES[config.model_type] == gguf.MODEL_ARCH.LLAMA:
        if "q_proj" in key:
            values = _paired(values, config.num_attention_heads)
        if "k_proj" in key:
            values = _paired(values, config.num_key_value_heads)
    kind = _kind(values.shape, precision, key=key, folder=folder)
    with np.errstate(over="ignore"):
        kept = gguf.quants.quantize(np.ascontiguousarray(values), kind)
    if kind == gguf.GGMLQuantizationType.F16 and not np.isfinite(kept).all():
        raise UserError(f"{folder}: the tensor {key!r} does not fit into float16; write it in float32")
    return kept


def _paired(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Each head's rows with those of its two halves in turn, as llama.cpp rotates neighbours."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _add_tokens(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, *, rows: int, folder: Path) -> None:
    """The tokenizer with its chat template.

    Args:
        rows: how many tokens the embedding has; those without a text are unused.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    said: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "none"}}
    model, added = said["model"], said.get("added_tokens", [])
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise _refused(folder, f"a tokenizer of type {model['type']}")
    tokens = {index: token for token, index in model["vocab"].items()} | {each["id"]: each["content"] for each in added}
    types = dict.fromkeys(tokens, gguf.TokenType.NORMAL)
    types |= {e["id"]: gguf.TokenType.CONTROL if e["special"] else gguf.TokenType.USER_DEFINED for e in added}
    if max(tokens) >= rows:
        raise _refused(folder, "a tokenizer with more tokens than the model knows")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_cut(said.get("pre_tokenizer"), folder))
    writer.add_token_list([tokens.get(index, f"[PAD{index}]") for index in range(rows)])
    writer.add_token_types([types.get(index, gguf.TokenType.UNUSED) for index in range(rows)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    begins = tokenizer("a")["input_ids"][0]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and begins == tokenizer.bos_token_id)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(tokenizer.chat_template)


def _cut(given: dict[str, Any] | None, folder: Path) -> str:
    """What llama.cpp calls the way in which a tokenizer cuts a text."""
    steps = (given or {}).get("pretokenizers", [given])
    for name, known in _CUTS.items():
        same = len(steps) == len(known) and all(
            each is not None and all(each.get(key) == value for key, value in wanted.items())
            for each, wanted in zip(steps, known, strict=True)
        )
        if same:
            return name
    raise _refused(folder, "the way in which its tokenizer cuts texts")
