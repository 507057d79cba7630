"""An adapter and its base as one whole model."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

from ontopic.config.model_settings import Precision
from ontopic.models.loading import LanguageModel, load
from ontopic.state.whole_file import folder_sha256, whole_folder
from ontopic.training.nf4_merging import merged_nf4


def merge(adapter: Path, base: Path, *, into: Path, precision: Precision) -> None:
    """Write ``base`` with ``adapter`` as a whole model.

    Args:
        precision: that it was trained in; weights in float32 come of ``float32`` and ``auto``, else bfloat16.
    """
    model = merged_nf4(adapter, base) if precision == "nf4" else _merged(adapter, base)
    with whole_folder(into) as part:
        model.model.save_pretrained(part)
        model.tokenizer.save_pretrained(part)


def _merged(adapter: Path, base: Path) -> LanguageModel:
    whole = load(base, "float32")
    tuned = PeftModel.from_pretrained(whole.model, str(adapter))
    return LanguageModel(tuned.merge_and_unload().eval(), whole.tokenizer, folder_sha256(adapter))
