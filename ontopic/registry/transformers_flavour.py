"""A model's folder as MLflow's transformers flavour has it, so that MLflow, Transformers and vLLM load the one folder.

Written without MLflow's ``save_model``: that wants the weights in a folder of their own, copies them, asks the hub for
a model card and has pip find out what the model needs. What is written is what MLflow 3.17 reads
(``mlflow/transformers/model_io.py``, ``flavor_config.py``).
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from ontopic.state.whole_file import linked

MLMODEL = "MLmodel"
_CONFIG = "config.json"
_TASK, _CHAT = "text-generation", "llm/v1/chat"
_COMPONENTS, _TOKENIZER = "components", "tokenizer"
_EXAMPLE, _SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"
_ENVIRONMENT, _REQUIREMENTS = "python_env.yaml", "requirements.txt"
_INPUT = {"messages": [{"role": "user", "content": "What do you help with?"}], "max_tokens": 64}
_NEEDED = ("mlflow", "torch", "transformers", "accelerate")
_GENERATION, _ENDS = "generation_config.json", ("bos_token_id", "eos_token_id", "pad_token_id")
# With these Transformers would warn, or follow the model's own configuration in place of this file.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "_from_model_config")
_OF_TOKENIZERS = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_NOT_OF_TOKENIZERS = (_EXAMPLE, _REQUIREMENTS, ".index.json", "adapter_config.json")


def tokenizer_files(folder: Path) -> Iterator[Path]:
    """The files beside a model's weights that say how text becomes tokens and is generated: tokenizer, chat template,
    generation config."""
    for path in sorted(folder.iterdir()):
        named = path.suffix in _OF_TOKENIZERS and path.name != _CONFIG and not path.name.endswith(_NOT_OF_TOKENIZERS)
        if named and path.is_file():
            yield path


def describe(folder: Path, name: str) -> None:
    """Write into a whole model's folder what MLflow loads and serves it by: chats, as OpenAI's API has them.

    Args:
        folder: ``config.json``, safetensors and tokenizer.
        name: what MLflow's scoring server calls the model.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    _answer_greedily(folder)
    tokenizer = folder / _COMPONENTS / _TOKENIZER  # MLflow looks for it nowhere else
    shutil.rmtree(tokenizer, ignore_errors=True)
    tokenizer.mkdir(parents=True)
    for path in (folder / _CONFIG, *tokenizer_files(folder)):
        linked(path, tokenizer / path.name)
    needed = [f"{package}=={version(package).partition('+')[0]}" for package in _NEEDED]
    (folder / _REQUIREMENTS).write_text("\n".join(needed) + "\n", encoding="utf-8")
    environment = {"python": platform.python_version(), "dependencies": [f"-r {_REQUIREMENTS}"]}
    (folder / _ENVIRONMENT).write_text(yaml.safe_dump(environment), encoding="utf-8")
    for example in (_EXAMPLE, _SERVED_EXAMPLE):
        (folder / example).write_text(json.dumps(_INPUT), encoding="utf-8")
    model = Model(
        signature=ModelSignature(inputs=CHAT_MODEL_INPUT_SCHEMA, outputs=CHAT_MODEL_OUTPUT_SCHEMA),
        saved_input_example_info={
            "artifact_path": _EXAMPLE,
            "type": "json_object",
            "serving_input_path": _SERVED_EXAMPLE,
        },
        metadata={"task": _CHAT},
        model_size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )
    model.add_flavor("transformers", **_flavour(name))
    pyfunc.add_to_model(model, loader_module="mlflow.transformers", python_env=_ENVIRONMENT)
    model.save(str(folder / MLMODEL))


def _answer_greedily(folder: Path) -> None:
    """Have greedy answers where a request asks for nothing else, as in our service: Transformers' pipeline samples."""
    path, config = folder / _GENERATION, json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    ends = {name: config[name] for name in _ENDS if config.get(name) is not None}
    set_before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else ends
    kept = {name: value for name, value in set_before.items() if name not in _SAMPLING}
    path.unlink(missing_ok=True)  # it may be a link to what others have
    path.write_text(json.dumps({**kept, "do_sample": False}, indent=2, sort_keys=True), encoding="utf-8")


def _flavour(name: str) -> dict[str, Any]:
    return {
        "transformers_version": version("transformers"),
        "code": None,
        "task": _TASK,
        "inference_task": _CHAT,
        "instance_type": "TextGenerationPipeline",
        "pipeline_model_type": "AutoModelForCausalLM",
        "model_binary": ".",
        "source_model_name": name,
        "components": [_TOKENIZER],
        "tokenizer_type": "AutoTokenizer",
    }
