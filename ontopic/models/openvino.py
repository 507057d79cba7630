"""A GGUF file as OpenVINO's own files: OpenVINO GenAI reads it and writes what it read."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ontopic.errors import UserError


def check_installed() -> None:
    """See before any work that OpenVINO GenAI is there.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("openvino_genai") is None:
        raise UserError(
            "OpenVINO's files need openvino-genai, which is not installed; "
            "run: pip install -c constraints.txt '.[openvino]'"
        )


def convert_gguf(path: Path) -> None:
    """Put OpenVINO's files, model, tokenizer and configuration, beside a GGUF file in its place.

    Raises:
        UserError: OpenVINO GenAI can't read it.
    """
    import openvino_genai

    try:
        openvino_genai.LLMPipeline(str(path), "CPU", enable_save_ov_model=True)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"OpenVINO GenAI can't read this model ({said}); export it as gguf or safetensors") from error
    path.unlink()
