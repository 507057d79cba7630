"""A LoRA adapter and its base made one model, which leaves this machine and is loaded as fast as any."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ontopic.config.model_settings import Precision
from ontopic.models.adapter_base import ADAPTER, CONFIG, name_base
from ontopic.models.loading import load, stored_dtype
from ontopic.registry.transformers_flavour import tokenizer_files
from ontopic.state.whole_file import folder_sha256, linked


def adapter_in(folder: Path) -> Path | None:
    """The whole adapter that a version's folder holds: beside the model, or alone, as earlier releases had it."""
    for place in (folder, folder / ADAPTER):
        if (place / CONFIG).is_file() and any(place.glob("adapter_model.*")):
            return place
    return None


def merge(adapter: Path, base: Path, *, into: Path, precision: Precision = "auto") -> None:
    """Write the model that ``base`` with ``adapter`` is into the folder ``into``, and the adapter beside it.

    Merged in float32 and rounded once, to the precision that the base is stored in: where that is float32, the model
    computes what base and adapter did. What was trained in 4 bits is merged as ``merged_nf4`` says, in bfloat16. The
    tokenizer and its chat template are the base's, byte by byte.

    Args:
        adapter: a PEFT adapter of ``base``, whatever it names as its base.
        base: a whole model.
        into: an empty folder.
        precision: that the adapter was trained in.

    Raises:
        UserError: ``base`` holds no whole model.
    """
    if precision == "nf4":
        from ontopic.training.nf4_merging import merged_nf4  # with PEFT, as below

        merged_nf4(adapter, base).model.save_pretrained(into)
    else:
        from peft import PeftModel  # seconds, which who merges nothing need not wait

        whole = load(base, "float32")
        merged: Any = PeftModel.from_pretrained(whole.model, str(adapter)).merge_and_unload()
        merged.to(stored_dtype(base)).save_pretrained(into)
    for path in tokenizer_files(base):
        (into / path.name).unlink(missing_ok=True)
        linked(path, into / path.name)
    (into / ADAPTER).mkdir()
    for path in adapter.glob("adapter_*"):  # the trainer saves the base's tokenizer beside them
        shutil.copy2(path, into / ADAPTER)
    name_base(into / ADAPTER, folder_sha256(base))
