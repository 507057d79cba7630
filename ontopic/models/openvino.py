"""A whole model as OpenVINO's own files, which OpenVINO GenAI and the OpenVINO Model Server load.

OpenVINO GenAI makes the model of a GGUF file in float16: it reads none in float32. Its reading of that file's tokenizer
takes letters such as ë apart, so the tokenizer is converted from Transformers' own.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from ontopic.errors import UserError
from ontopic.models.gguf import write_gguf
from ontopic.models.loading import conversational_tokenizer

_KEPT = ("openvino_model.xml", "openvino_model.bin")
_SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")


def check_openvino() -> None:
    """See before any work that OpenVINO's packages are there.

    Raises:
        UserError: one is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("openvino_genai", "openvino_tokenizers")):
        raise UserError(
            "OpenVINO's files need openvino-genai, which is not installed; "
            "run: pip install -c constraints.txt '.[openvino]'"
        )


def write_openvino(folder: Path, into: Path) -> None:
    """Write the model in ``folder``, with its tokenizer and chat template, into another folder.

    Raises:
        UserError: it can't be written as GGUF, or OpenVINO GenAI can't read that.
        OSError: a file can't be written.
    """
    import openvino
    import openvino_genai
    from openvino_tokenizers import convert_tokenizer

    work = into / "gguf"  # OpenVINO GenAI writes beside the file that it reads
    work.mkdir()
    write_gguf(folder, work / "model.gguf", precision="float16", name=folder.name)
    try:
        openvino_genai.LLMPipeline(str(work / "model.gguf"), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"OpenVINO GenAI can't read this model ({said}); export it as gguf or safetensors") from error
    for name in _KEPT:
        (work / name).rename(into / name)
    shutil.rmtree(work)
    tokenizer, detokenizer = convert_tokenizer(conversational_tokenizer(folder), with_detokenizer=True)
    openvino.save_model(tokenizer, into / "openvino_tokenizer.xml")
    openvino.save_model(detokenizer, into / "openvino_detokenizer.xml")
    for name in _SETTINGS:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, into / name)
