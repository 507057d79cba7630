"""A second version beside one that is loaded already, on one copy of what they have in common.

Both are tuned from one base by low-rank adapters (Hu et al. 2021, LoRA). So the weights of one are those of the other
plus a product of two thin matrices: its own adapter's, less that of the other. Whether that is so is looked at, weight
by weight; where it is not, the second version is loaded whole.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from ontopic.config.model_settings import Precision
from ontopic.models.adapter_base import ADAPTER
from ontopic.models.loading import LanguageModel, load, open_model

_ROUNDINGS = 4  # of what is added, by which two sums of the same may differ
_PREFIX = "base_model.model."


class LowRank(NamedTuple):
    """A matrix of shape (rows, columns) as a product of two thin ones.

    Attributes:
        up: of shape (rows, rank).
        down: of shape (rank, columns).
    """

    up: torch.Tensor
    down: torch.Tensor


class _Beside(nn.Module):
    """A linear layer of another model, with what this one's weights differ by."""

    def __init__(self, linear: nn.Linear, difference: LowRank) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("up", difference.up.to(linear.weight), persistent=False)
        self.register_buffer("down", difference.down.to(linear.weight), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States of shape (…, columns) to (…, rows)."""
        added: torch.Tensor = self.linear(states)
        return added + functional.linear(functional.linear(states, self.down), self.up)  # type: ignore[arg-type]


def load_beside(
    loaded: LanguageModel, loaded_from: Path, *, folder: Path, precision: Precision = "auto"
) -> LanguageModel:
    """The model in ``folder``, which shares its weights with one that is loaded as far as they have them in common.

    Its answers may differ from those of the same model loaded whole by what rounding does.

    Args:
        loaded: a whole model, which is not changed.
        loaded_from: its folder.
        precision: as ``ModelSettings`` has it, for where nothing can be shared.

    Raises:
        UserError: as ``load``.
    """
    differences = _differences(loaded.model, loaded_from, folder=folder)
    if differences is None:
        return load(folder, precision)
    shared = [*loaded.model.parameters(), *loaded.model.buffers()]
    model: Any = copy.deepcopy(loaded.model, {id(each): each for each in shared})
    for name, difference in differences.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, _Beside(model.get_submodule(name), difference))
    opened = open_model(folder, precision)
    return LanguageModel(model.eval(), opened.tokenizer, digest=opened.digest)


def _differences(model: Any, loaded_from: Path, *, folder: Path) -> dict[str, LowRank] | None:
    """What each linear layer in ``folder`` differs by from that of the model; ``None`` where more does."""
    before, after = _adapter(loaded_from / ADAPTER), _adapter(folder / ADAPTER)
    if before is None or after is None:
        return None
    found = {}
    for name in before.keys() | after.keys():
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            return None
        if not isinstance(layer, nn.Linear):
            return None
        ups = [after[name].up] if name in after else []
        downs = [after[name].down] if name in after else []
        if name in before:
            ups.append(-before[name].up)
            downs.append(before[name].down)
        found[name] = LowRank(torch.cat(ups, dim=1), torch.cat(downs, dim=0))
    return found if _is_all(model, folder, differences=found) else None


def _adapter(folder: Path) -> dict[str, LowRank] | None:
    """The product that an adapter adds to each layer; none where there is no adapter, as of a base; ``None`` where it
    is of another kind."""
    if not (folder / "adapter_config.json").is_file():
        return {}
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            layer, _, kind = name.removeprefix(_PREFIX).removesuffix(".weight").rpartition(".")
            if kind not in ("lora_A", "lora_B"):
                return None
            matrices.setdefault(layer, {})[kind] = file.get_tensor(name).float()
    found = {}
    for layer, of in matrices.items():
        rank = len(of["lora_A"])
        scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        found[layer] = LowRank(of["lora_B"] * scale, of["lora_A"])
    return found


def _is_all(model: Any, folder: Path, *, differences: Mapping[str, LowRank]) -> bool:
    """Whether the weights in ``folder`` are those of the model with these differences, and nothing else."""
    own, looked_at = model.state_dict(), set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                if name not in own:
                    return False
                stored, mine = file.get_tensor(name), own[name]
                difference = differences.get(name.removesuffix(".weight"))
                if not _is_sum(stored, mine, difference=difference):
                    return False
                looked_at.add(mine.data_ptr())
    return {each.data_ptr() for each in own.values()} <= looked_at  # tied weights are stored once


def _is_sum(stored: torch.Tensor, mine: torch.Tensor, *, difference: LowRank | None) -> bool:
    if stored.shape != mine.shape:
        return False
    precision = max(torch.finfo(each.dtype).eps for each in (stored, mine))
    wanted, found = stored.float(), mine.detach().float().cpu()
    size = wanted.abs() + found.abs()
    if difference is not None:
        found = found + difference.up @ difference.down
        size += difference.up.abs() @ difference.down.abs()
    return bool(((wanted - found).abs() <= _ROUNDINGS * precision * size).all())
