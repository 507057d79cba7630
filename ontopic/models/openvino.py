"""A whole model as OpenVINO's own files, which OpenVINO GenAI and the OpenVINO Model Server load.

OpenVINO GenAI makes the model of a GGUF file in float16: it reads none in float32, so those weights are put in after.
Its reading of that file's tokenizer takes letters such as ë apart, so that is converted from Transformers' own.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ontopic.config.model_settings import FilePrecision, Precision
from ontopic.errors import UserError
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import conversational_tokenizer
from ontopic.state.machine_cache import machine_cache, made_once

_KEPT = ("openvino_model.xml", "openvino_model.bin")
_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")
_KEPT_AS: dict[Precision, FilePrecision] = {"float32": "float32", "int8": "int8", "int4": "int4"}  # float16 else
_MOST_CONVERTED = 4
_FORM = 1  # of what is converted: another one is converted anew


def converted(folder: Path, digest: str, *, precision: Precision) -> Path:
    """The model in ``folder`` as OpenVINO's files: once a machine, and the newest few are kept.

    Args:
        digest: of the model's files.

    Raises:
        UserError: as ``write_openvino``.
    """
    kept = _KEPT_AS.get(precision, "float16")
    root = _cache()
    place = root / f"{digest[:32]}-{kept}-{version('openvino-genai')}-{_FORM}"
    if place.is_dir():
        with suppress(OSError):  # it may be another user's
            os.utime(place)
        return place
    made_once(
        place,
        lambda part: write_openvino(folder, part, precision=kept),
        whole_by=_KEPT[0],
        label="model, converted for OpenVINO",
    )
    whole = [each for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]  # no lock, no part
    for old in sorted(whole, key=lambda each: each.stat().st_mtime)[:-_MOST_CONVERTED]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def _cache() -> Path:
    """Where this machine's conversions are; those of this process alone where its user can keep none."""
    try:
        root = machine_cache() / "openvino"
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except (OSError, RuntimeError):  # a home that is missing, full or may only be read; there is no such user
        pass
    return _of_this_process()


@cache
def _of_this_process() -> Path:
    folder = tempfile.mkdtemp(prefix="ontopic-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def write_openvino(folder: Path, into: Path, *, precision: FilePrecision = "float16") -> None:
    """Write the model in ``folder``, with its tokenizer and chat template, into another folder.

    Args:
        precision: of the matrices.

    Raises:
        UserError: it can't be written as GGUF, or OpenVINO GenAI can't read that.
        OSError: a file can't be written.
    """
    import openvino
    import openvino_genai
    from openvino_tokenizers import convert_tokenizer

    work = into / "gguf"  # OpenVINO GenAI writes beside the file that it reads
    work.mkdir()
    read = "float16" if precision == "float32" else precision
    write_gguf(folder, work / "model.gguf", precision=read, name=folder.name)
    try:
        openvino_genai.LLMPipeline(str(work / "model.gguf"), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"OpenVINO GenAI can't read this model ({said}); export it as gguf or safetensors") from error
    if precision == "float32":
        model = openvino.Core().read_model(work / _KEPT[0])
        _put_in(model, folder)
        openvino.save_model(model, into / _KEPT[0], compress_to_fp16=False)
    else:
        for name in _KEPT:
            (work / name).rename(into / name)
    shutil.rmtree(work)
    tokenizer, detokenizer = convert_tokenizer(conversational_tokenizer(folder), with_detokenizer=True)
    openvino.save_model(tokenizer, into / "openvino_tokenizer.xml")
    openvino.save_model(detokenizer, into / "openvino_detokenizer.xml")
    for name in _SETTINGS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, into / name)


def _put_in(model: Any, folder: Path) -> None:
    """Put the weights of the safetensors in ``folder``, in float32, in place of those of the same names in float16."""
    import openvino
    import torch
    from safetensors import safe_open

    halves = {
        node.get_friendly_name(): node
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.f16
    }
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                called = re.sub(r"\.(\d+)\.", r"[\1].", name)
                if (half := halves.pop(called, None)) is None:
                    continue
                values = tensors.get_tensor(name).to(torch.float32).numpy()
                whole = openvino.opset13.constant(values.reshape(list(half.get_output_shape(0))))
                whole.set_friendly_name(called)
                for reader in half.output(0).get_target_inputs():
                    reader.get_node().output(0).replace(whole.output(0))  # of what makes float32 of float16
    if missed := [name for name, node in halves.items() if node.get_output_size() and "weight" in name]:
        raise UserError(f"{folder}: the tensor {missed[0]!r} has no like among the weights; export it in float16")
