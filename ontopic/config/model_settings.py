"""The section ``model`` of the configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ontopic.config.section import Section

Precision = Literal["auto", "float32", "bfloat16", "int8", "int4", "nf4"]
FilePrecision = Literal["float32", "float16", "int8", "int4"]
"""Of the weights in a file for another engine: GGUF's or OpenVINO's."""


class ModelSettings(Section):
    """The base model."""

    name: str
    """``embedded``, a Hugging Face id, or a local folder."""
    precision: Precision = "auto"
    """Of the weights: ``float32``, ``bfloat16``, or ``auto``, the latter where it is multiplied natively; or few bits,
    to answer on a CPU (``int8``, ``int4``) or to train with bitsandbytes on CUDA (``nf4``)."""
    chat_template: str | None = None
    """The chat template, in Jinja, for a base model that has none; it takes the place of one that the model has."""
    max_new_tokens: int = Field(64, ge=1)
    """The longest answer, in tokens."""
    batch_size: int = Field(128, ge=1)
    """How many answers are generated together in evaluation."""

    @property
    def training_precision(self) -> Precision:
        """Of the weights that are trained on."""
        return "auto" if self.precision in ("int8", "int4") else self.precision

    @property
    def answering_precision(self) -> Precision:
        """Of the weights that answer. What was trained in 4 bits is whole once it is merged, and is judged as it is
        served."""
        return "auto" if self.precision == "nf4" else self.precision
