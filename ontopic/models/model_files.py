"""Which files of a folder are a model's own: what Transformers reads, without what MLflow or PEFT keep beside them."""

from __future__ import annotations

from pathlib import Path

from ontopic.errors import UserError

_KEPT = (
    *("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.jinja", "chat_template.json"),
)


def model_files(folder: Path) -> list[Path]:
    """The files of the whole model in ``folder``, by name.

    Raises:
        UserError: it holds an adapter alone, or no weights.
    """
    found = sorted({path for pattern in _KEPT for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in found}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{folder} holds no whole model (config.json and *.safetensors); export a version that has one")
    return found
