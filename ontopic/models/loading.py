"""Language models: one loader for the embedded model, a Hugging Face id or a local folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ontopic.config.model_settings import ModelSettings, Precision
from ontopic.errors import UserError
from ontopic.models.adapter_base import CONFIG
from ontopic.models.chat_template import check_template
from ontopic.models.hub_download import TOKENIZER_FILES, WEIGHTS, downloaded
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace

EMBEDDED = "embedded"


class LanguageModel:
    """A causal language model with its tokenizer.

    Args:
        model: the weights, in evaluation mode; ``None`` where ``folder`` holds them: then they are read when they are
            asked for, which need not be, as OpenVINO reads its own.
        tokenizer: pads on the left, so that a batch can be generated from.
        digest: SHA-256 (hex) over the files that the model was loaded from.
        folder: whose weights these are; ``None`` where they are no folder's.
        precision: of the weights, as ``ModelSettings`` has it.
    """

    def __init__(
        self,
        model: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase,
        *,
        digest: str = "",
        folder: Path | None = None,
        precision: Precision = "auto",
    ) -> None:
        self.tokenizer, self.digest, self.folder, self.precision = tokenizer, digest, folder, precision
        self._model = model
        self._engine: Any = None

    @property
    def model(self) -> PreTrainedModel:
        """The weights in PyTorch.

        Raises:
            UserError: they can't be read.
        """
        if self._model is None:
            self._model = _weights(cast(Path, self.folder), self.precision)
        return self._model

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        return self._model.config if self._model is not None else AutoConfig.from_pretrained(cast(Path, self.folder))

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        if self._model is not None:
            configured = getattr(self._model.generation_config, "eos_token_id", None)
        else:
            configured = _generation_config(self.folder).eos_token_id if self.folder else None
        configured = configured if isinstance(configured, list) else [configured]
        return frozenset(token for token in (*configured, self.tokenizer.eos_token_id) if token is not None)

    def engine(self, opened: Callable[[], Any]) -> Any:
        """What OpenVINO generates with, opened the first time, and anew where it ended; ``None`` where it can't."""
        if self._engine is None or (self._engine[0] is not None and not self._engine[0].close.alive):
            self._engine = (opened(),)
        return self._engine[0]


def resolve(name: str, workspace: Workspace) -> Path:
    """Folder with the weights of ``name``: ``embedded``, a local folder, or a Hugging Face id.

    The embedded model is converted once on a machine; a Hugging Face id is downloaded (or taken from the hub's cache).

    Raises:
        UserError: the embedded wheel is not installed; the hub does not know or cannot deliver the id.
    """
    if name == EMBEDDED:
        from ontopic.models.embedded import embedded_folder  # its libraries are needed once on a machine

        hide_progress_bars()
        return embedded_folder(workspace)
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else downloaded(name, [*TOKENIZER_FILES, *WEIGHTS])


def check_conversational(model: ModelSettings) -> None:
    """Fail before any work where a configured model knows no conversations; needs no weights.

    Raises:
        UserError: it is a base model without a template, its template does not do, or ``resolve`` would fail.
    """
    folder = Path(model.name).expanduser()
    if model.name == EMBEDDED:
        return
    folder = folder if folder.is_dir() else downloaded(model.name, TOKENIZER_FILES)
    if model.chat_template is None:
        check_template(conversational_tokenizer(folder), f"the chat template in {folder}")
    else:
        tokenizer = _tokenizer(folder)
        tokenizer.chat_template = model.chat_template
        check_template(tokenizer, "model.chat_template")


def conversational_tokenizer(folder: Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer in ``folder``, which has a chat template.

    Raises:
        UserError: it has none, as that of a base model; or there is no tokenizer that can be read.
    """
    tokenizer = _tokenizer(folder, **options)
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder} holds a base model: it has no chat template, so it cannot answer conversations; take the model "
            "that was tuned for them, such as google/gemma-1.1-2b-it in place of google/gemma-2b, or give a template "
            "in model.chat_template"
        )
    return tokenizer


def _tokenizer(folder: Path, **options: Any) -> PreTrainedTokenizerBase:
    if (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} holds a PEFT adapter, and a whole model is needed: merge it into its base (PEFT's "
            "merge_and_unload, then save_pretrained) and give the folder of that"
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: there is no config.json")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:  # of a damaged file, Transformers and the Rust behind it raise a dozen unrelated types
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{folder} holds no tokenizer that can be read ({type(error).__name__}: {said}); get the model's files anew"
        ) from error
    return tokenizer


def open_model(folder: Path, precision: Precision = "auto") -> LanguageModel:
    """The model in ``folder``, whose weights are read when they are needed.

    Args:
        folder: holds ``config.json``, safetensors and the tokenizer.
        precision: as ``ModelSettings`` has it.

    Raises:
        UserError: ``folder`` holds no whole model, or one that knows no conversations.
    """
    tokenizer = conversational_tokenizer(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LanguageModel(None, tokenizer, digest=folder_sha256(folder), folder=folder, precision=precision)


def load(folder: Path, precision: Precision = "auto") -> LanguageModel:
    """As ``open_model``, with its weights in PyTorch.

    Raises:
        UserError: as ``open_model``; the weights are damaged; or NF4 is asked for without bitsandbytes.
    """
    opened = open_model(folder, precision)
    _ = opened.model
    return opened


def _weights(folder: Path, precision: Precision) -> PreTrainedModel:
    hide_progress_bars()
    options: dict[str, Any] = {"dtype": _dtype(precision)}
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    if precision == "nf4":
        options["quantization_config"] = nf4_config()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, SafetensorError) as error:
        said = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder} holds no weights that can be read ({said}); get the model's files anew") from error
    return model.eval()


def _generation_config(folder: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(folder)
    except OSError:  # there is none: Transformers makes one of the configuration
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))


def hide_progress_bars() -> None:
    """Progress is ours to show: a bar of Transformers' for each load is noise. A switch of the whole process."""
    transformers_logging.disable_progress_bar()


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision of the weights in a model's folder, by its ``config.json``; float32 where that does not say."""
    dtype = AutoConfig.from_pretrained(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _dtype(precision: Precision) -> torch.dtype:
    if precision in ("auto", "int8", "int4"):
        return torch.bfloat16 if torch.cuda.is_available() or cpu_multiplies_bfloat16() else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16


@cache
def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU does so natively; emulated, bfloat16 is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def check_bitsandbytes() -> None:
    """Make sure that weights and optimizers of few bits can be had.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "bitsandbytes, which holds weights in 4 bits and optimizers in 8, is not installed; run: "
            "pip install -c constraints.txt '.[gpu]'"
        )


def nf4_config() -> Any:
    """QLoRA's 4-bit setting (Dettmers et al. 2023, arXiv 2305.14314): NF4, double quantisation, bf16 compute.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    check_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
