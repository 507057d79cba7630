from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoRALinear
from small_models import small_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ontopic.training.fused_lora import fuse
from ontopic.training.needed_pairs import Needed

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("small")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else small_model(root / kind, kind)

    return folder


def adapted(folder: Path, dtype: torch.dtype = torch.float32, **config: Any) -> Any:
    """A model with random adapters: at their usual start, zero, half of the gradients would be zero."""
    torch.manual_seed(0)
    config = {"target_modules": PROJECTIONS, "init_lora_weights": False} | config
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **config)).float()


def values(model: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.arange(3, 33).unsqueeze(0), use_cache=False).logits
    return logits


def values_and_gradients(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    ids = torch.arange(3, 33).unsqueeze(0)
    logits = model(input_ids=ids, use_cache=False).logits
    model.zero_grad()
    (logits * torch.linspace(-1, 1, logits.shape[-1])).sin().sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_alike(found: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    """Each within a thousandth of a matrix's largest value."""
    assert found.keys() == gradients.keys() and gradients
    for name, gradient in gradients.items():
        assert (found[name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name


def fused(model: nn.Module) -> set[str]:
    """The last part of the names of what is computed anew."""
    return {name.rpartition(".")[2] for name, module in model.named_modules() if "forward" in vars(module)}


# Qwen 2's layers have a bias; Gemma's norms and gates are not Llama's.
@pytest.mark.parametrize(
    ("kind", "modules", "of_blocks"),
    [
        ("llama", PROJECTIONS, {"mlp", "input_layernorm", "post_attention_layernorm"}),
        ("llama", ["q_proj", "down_proj"], {"input_layernorm", "post_attention_layernorm"}),
        ("qwen2", PROJECTIONS, {"mlp", "input_layernorm", "post_attention_layernorm"}),
        ("gemma", PROJECTIONS, set()),
    ],
    ids=["all", "some", "bias", "other norms and gates"],
)
def test_values_and_gradients_are_peft_s(
    folders: Callable[[str], Path], kind: str, modules: list[str], of_blocks: set[str]
) -> None:
    model = adapted(folders(kind), target_modules=modules)
    logits, gradients = values_and_gradients(model)
    fuse(model, Needed())
    assert fused(model) - {"norm"} == {*modules, *of_blocks}
    found_logits, found = values_and_gradients(model)
    torch.testing.assert_close(found_logits, logits)
    assert_alike(found, gradients)


def test_blocks_before_the_first_adapter_get_no_gradient(folders: Callable[[str], Path]) -> None:
    model = adapted(folders("llama"), layers_to_transform=[1])
    _, gradients = values_and_gradients(model)
    fuse(model, Needed())
    _, found = values_and_gradients(model)
    assert all(".layers.1." in name for name in found)
    assert_alike(found, gradients)


def test_activations_can_be_computed_again(folders: Callable[[str], Path]) -> None:
    model = adapted(folders("llama"))
    model.enable_input_require_grads()
    _, gradients = values_and_gradients(model)
    fuse(model, Needed())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    _, found = values_and_gradients(model)
    assert_alike(found, gradients)


@pytest.mark.parametrize(
    "config",
    [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}],
    ids=["dropout", "DoRA", "a trained bias"],
)
def test_other_adapters_stay_peft_s(folders: Callable[[str], Path], config: dict[str, Any]) -> None:
    kind = "qwen2" if "lora_bias" in config else "llama"
    of_them = {"target_modules": ["q_proj", "v_proj"]} if kind == "qwen2" else {}
    model = adapted(folders(kind), **config, **of_them)
    fuse(model, Needed())
    assert not fused(model) & {*PROJECTIONS, "mlp"}


def test_a_second_adapter_and_a_trained_layer_stay_peft_s(folders: Callable[[str], Path]) -> None:
    model = adapted(folders("llama"))
    model.add_adapter("second", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    next(m for n, m in model.named_modules() if n.endswith("k_proj")).base_layer.weight.requires_grad = True
    fuse(model, Needed())
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)]
    assert {n.rpartition(".")[2] for n, m in layers if "forward" not in vars(m)} == {"q_proj", "k_proj"}


def test_adapters_can_be_turned_off(folders: Callable[[str], Path]) -> None:
    model = adapted(folders("llama"))
    with model.disable_adapter():
        before = values(model)
    with_adapter = values(model)
    fuse(model, Needed())
    with model.disable_adapter():
        torch.testing.assert_close(values(model), before)
    assert (with_adapter - before).abs().max() > 1e-3
    torch.testing.assert_close(values(model), with_adapter)
