"""A merged model says what its base with the adapter says, and names nothing of the machine that made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from whole_models import random_adapter, said, tiny_model

from ontopic.errors import UserError
from ontopic.models.adapter_base import ADAPTER
from ontopic.models.loading import load
from ontopic.state.whole_file import folder_sha256
from ontopic.training.merging import merge


@pytest.fixture
def base(model_folder: Path, tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "bäse 1", model_folder)


@pytest.mark.slow
def test_the_same_logits_and_answers_as_base_and_adapter(base: Path, tmp_path: Path) -> None:
    adapter, merged = random_adapter(tmp_path / "adapter", base), tmp_path / "merged"
    merge(adapter, base, into=merged)
    ids = torch.randint(0, 49152, (3, 17), generator=torch.manual_seed(0))
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    whole = load(merged, "float32").model
    with torch.no_grad():
        torch.testing.assert_close(whole(ids).logits, tuned(ids).logits, rtol=1e-4, atol=1e-3)
        assert torch.equal(whole(ids).logits, tuned.merge_and_unload()(ids).logits)
    assert said(merged) != said(base)


def test_it_is_whole_and_names_no_path(base: Path, tmp_path: Path) -> None:
    adapter, merged = random_adapter(tmp_path / "adapter", base), tmp_path / "merged"
    assert str(tmp_path) in (adapter / "adapter_config.json").read_text()
    merge(adapter, base, into=merged)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (merged / name).read_bytes() == (base / name).read_bytes()
    assert (merged / "generation_config.json").is_file()
    named = json.loads((merged / ADAPTER / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == f"sha256:{folder_sha256(base)}"
    for path in (path for path in merged.rglob("*") if path.is_file()):
        assert str(tmp_path).encode() not in path.read_bytes(), path
        assert "bäse".encode() not in path.read_bytes(), path
    assert {path.name for path in (merged / ADAPTER).iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_merged_in_float32_and_rounded_once_to_what_the_base_is_stored_in(model_folder: Path, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", model_folder, torch.bfloat16)
    merge(random_adapter(tmp_path / "adapter", base), base, into=tmp_path / "merged")
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert {weights.dtype for weights in stored.values()} == {torch.bfloat16}
    exact = PeftModel.from_pretrained(load(base, "float32").model, str(tmp_path / "adapter")).merge_and_unload()
    for name, weights in exact.state_dict().items():
        if name in stored:  # the output shares the embeddings' weights
            assert torch.equal(stored[name], weights.to(torch.bfloat16))


def test_an_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tmp_path / "adapter", base)
    with pytest.raises(UserError, match="holds a PEFT adapter, and a whole model is needed"):
        merge(adapter, adapter, into=tmp_path / "merged")
