"""Adapters that were trained on weights of 4 bits (QLoRA, arXiv 2305.14314), merged into whole ones."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

from ontopic.models.loading import LanguageModel, load
from ontopic.state.whole_file import folder_sha256


def dequantised(base: Path) -> LanguageModel:
    """What training in NF4 works on: the weights of ``base``, brought to 4 bits and back to bfloat16.

    Raises:
        UserError: as ``load``.
    """
    language_model = load(base, "nf4")
    # Before any forward pass: on some CPUs bitsandbytes packs the weights in another order for it.
    model = language_model.model.dequantize()
    return LanguageModel(model, language_model.tokenizer, digest=language_model.digest)


def merged_nf4(adapter: Path, base: Path) -> LanguageModel:
    """``base`` with an adapter that was trained on it in NF4, in bfloat16.

    The adapter has learned to make up for what the 4 bits lose, so it is added to them, and not to the weights that
    they were made of. Each sum is rounded once.

    Raises:
        UserError: as ``load``.
    """
    whole = dequantised(base)
    tuned = PeftModel.from_pretrained(whole.model, str(adapter))
    return LanguageModel(tuned.merge_and_unload().eval(), whole.tokenizer, digest=folder_sha256(adapter))
