"""A block's frozen layers and their LoRA adapters (Hu et al. 2021, arXiv 2106.09685) as one autograd function each.

PEFT's layer and PyTorch's autograd write, scale, add and keep every term by itself, and each such pass over memory
costs about as much as a thin product. Here an adapter's term is added in place by its product, its scaling is folded
into B, only what the backward pass takes is kept, and that is of the needed tokens. Values and gradients are PEFT's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import Linear as LoRALinear
from torch import Tensor, nn
from torch.nn.functional import silu

from ontopic.training.needed_pairs import Needed

_ADAPTER = "default"


def fuse(model: nn.Module, needed: Needed) -> None:
    """Compute what is known to be plain LoRA, a gated SiLU or a norm by its root mean square here; leave the rest.

    Known by what it does and not by its class: families of models share these, under names of their own. Layers with
    dropout, DoRA, quantised weights or a trained bias stay PEFT's.

    Args:
        model: with PEFT's layers; their ``forward`` is replaced.
        needed: shared with who chooses the pairs.
    """
    for module in model.modules():
        if _is_norm(module):
            module.forward = _norm(module, needed)
        elif _is_gated_silu(module):
            module.forward = _either(module, _gated_silu(module, needed), layers=[*map(module.get_submodule, _GATED)])
        elif _is_plain(module):
            module.forward = _either(module, _linear(module, needed), layers=[module])


def _either(module: nn.Module, fused: Callable[[Tensor], Tensor], *, layers: list[Any]) -> Callable[[Tensor], Tensor]:
    """``fused``, or what the module did before, while adapters are turned off or merged."""
    before = module.forward

    def forward(states: Tensor) -> Tensor:
        return before(states) if any(layer.disable_adapters or layer.merged for layer in layers) else fused(states)

    return forward


class _Adapted(NamedTuple):
    """A layer with its adapter."""

    weight: Tensor  # (out, in), as is the frozen rest
    bias: Tensor | None
    scaling: float
    a: Tensor  # (rank, in)
    b: Tensor  # (out, rank)

    @classmethod
    def of(cls, layer: Any) -> _Adapted:
        base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
        return cls(base.weight, base.bias, layer.scaling[_ADAPTER], a, b)

    def forward(self, states: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The output, and what ``backward`` takes: input by A, A, and B by the scaling, in the weight's type."""
        a, b = self.a.to(self.weight.dtype), (self.b * self.scaling).to(self.weight.dtype)
        thin = states @ a.T  # (tokens, rank)
        wide = states @ self.weight.T if self.bias is None else torch.addmm(self.bias, states, self.weight.T)
        return wide.addmm_(thin, b.T), (thin, a, b)

    def backward(self, gradient: Tensor, states: Tensor, *, thin: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the input by A, of A and of B."""
        below = gradient @ b  # (tokens, rank)
        of_a, of_b = below.T @ states, (gradient.T @ thin).mul_(self.scaling)
        return below, of_a.to(self.a.dtype), of_b.to(self.b.dtype)


class _Linear(torch.autograd.Function):
    """``_Adapted`` on states of shape (..., in)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, a: Tensor, b: Tensor, layer: _Adapted, needed: Needed) -> Tensor:
        flat = states.flatten(0, -2)  # (tokens, in)
        out, computed = layer.forward(flat)
        ctx.save_for_backward(flat, *computed)
        ctx.shape, ctx.layer, ctx.needed = states.shape, layer, needed
        return out.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, thin, a, b = ctx.saved_tensors
        needed, layer = ctx.needed, ctx.layer
        gradient = needed.of(gradients[0].flatten(0, -2))  # (needed tokens, out)
        below, of_a, of_b = layer.backward(gradient, needed.of(states), thin=needed.of(thin), b=b)
        of_states = None
        if ctx.needs_input_grad[0]:
            of_states = needed.whole((gradient @ layer.weight).addmm_(below, a), ctx.shape)
        return of_states, of_a, of_b, None, None


def _linear(module: Any, needed: Needed) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        layer = _Adapted.of(module)  # each time: FSDP puts other tensors in place of a module's
        return _Linear.apply(states.to(layer.weight.dtype), layer.a, layer.b, layer, needed)

    return forward


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer does nothing but add ``B A x`` by a scaling to a frozen linear layer in floating point."""
    if type(module) is not LoRALinear or type(module.base_layer) is not nn.Linear:
        return False
    base, other = module.base_layer, [name for name in module.lora_A if name != _ADAPTER]
    return (
        not other
        and not module.lora_variant
        and not module.fan_in_fan_out
        and not module.lora_bias[_ADAPTER]
        and isinstance(module.lora_dropout[_ADAPTER], nn.Identity)
        and base.weight.is_floating_point()
        and not any(parameter.requires_grad for parameter in base.parameters())
    )


_GATED = ("gate_proj", "up_proj", "down_proj")


class _GatedSiLU(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))``, the feed-forward part of Llama's blocks (Shazeer 2020, arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layers: tuple[_Adapted, ...], needed: Needed, *_: Tensor) -> Tensor:
        flat = states.flatten(0, -2)  # (tokens, in)
        (gate, of_gate), (up, of_up) = (layer.forward(flat) for layer in layers[:2])  # (tokens, wide)
        opened = silu(gate)
        out, of_down = layers[2].forward(opened * up)
        ctx.save_for_backward(flat, gate, up, opened, *of_gate, *of_up, *of_down)
        ctx.layers, ctx.needed = layers, needed
        return out.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        needed, layers = ctx.needed, ctx.layers
        states, gate, up, opened, thin_0, a_0, b_0, thin_1, a_1, b_1, thin_2, a_2, b_2 = ctx.saved_tensors
        states, gate, up, opened = map(needed.of, (states, gate, up, opened))  # (needed tokens, ...)
        gradient = needed.of(gradients[0].flatten(0, -2))
        below, *of_down = layers[2].backward(gradient, opened * up, thin=needed.of(thin_2), b=b_2)
        of_product = (gradient @ layers[2].weight).addmm_(below, a_2)
        of_up = of_product * opened
        below, *of_up_adapter = layers[1].backward(of_up, states, thin=needed.of(thin_1), b=b_1)
        of_states = (of_up @ layers[1].weight).addmm_(below, a_1)
        of_gate = torch.ops.aten.silu_backward(of_product.mul_(up), gate)
        below, *of_gate_adapter = layers[0].backward(of_gate, states, thin=needed.of(thin_0), b=b_0)
        of_states.addmm_(of_gate, layers[0].weight).addmm_(below, a_0)
        whole = needed.whole(of_states, gradients[0].shape[:-1] + states.shape[-1:])
        return whole, None, None, *of_gate_adapter, *of_up_adapter, *of_down


def _gated_silu(module: nn.Module, needed: Needed) -> Callable[[Tensor], Tensor]:
    def forward(states: Tensor) -> Tensor:
        layers = tuple(_Adapted.of(module.get_submodule(name)) for name in _GATED)
        adapters = [matrix for layer in layers for matrix in (layer.a, layer.b)]
        return _GatedSiLU.apply(states.to(layers[0].weight.dtype), layers, needed, *adapters)

    return forward


def _is_gated_silu(module: nn.Module) -> bool:
    layers: list[Any] = [getattr(module, name, None) for name in _GATED]
    if not all(isinstance(layer, nn.Module) and _is_plain(layer) for layer in layers):
        return False
    gate, up, down = layers
    some = _some(gate.base_layer.weight)
    with torch.no_grad():
        return torch.equal(module(some), down(silu(gate(some)) * up(some)))


class _Norm(torch.autograd.Function):
    """Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467) by a frozen weight."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float, needed: Needed) -> Tensor:
        flat = states.flatten(0, -2)  # (tokens, size)
        wide = flat.float()
        of_squares = torch.linalg.vector_norm(wide, dim=1, keepdim=True).square_() / wide.shape[1]
        inverse = of_squares.add_(epsilon).rsqrt_()  # (tokens, 1)
        ctx.save_for_backward(flat, inverse)
        ctx.weight, ctx.needed = weight, needed
        # A copy where the type is the same: ``wide`` is then the input.
        return (wide * inverse).to(states.dtype).mul(weight).view(states.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        needed = ctx.needed
        states, inverse = map(needed.of, ctx.saved_tensors)
        scaled = needed.of(gradients[0].flatten(0, -2)) * ctx.weight.float()  # (needed tokens, size)
        wide = states.float()
        along = (scaled * wide).sum(1, keepdim=True).mul_(inverse**3 / wide.shape[1])
        below = scaled.mul_(inverse).addcmul_(wide, along, value=-1)
        return needed.whole(below.to(states.dtype), gradients[0].shape), None, None, None


def _norm(module: Any, needed: Needed) -> Callable[[Tensor], Tensor]:
    before = module.forward

    def forward(states: Tensor) -> Tensor:
        if not states.requires_grad:
            return before(states)
        return _Norm.apply(states, module.weight, module.variance_epsilon, needed)

    return forward


def _is_norm(module: nn.Module) -> bool:
    weight, epsilon = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or weight.requires_grad or epsilon is None:
        return False
    some = _some(weight)
    with torch.no_grad():
        ours = _Norm.apply(some, weight, epsilon, Needed())
        return torch.allclose(module(some), ours, rtol=0.01)


def _some(weight: Tensor) -> Tensor:
    """Two states that a layer with this weight takes."""
    return torch.linspace(-1, 2, 2 * weight.shape[-1], dtype=weight.dtype, device=weight.device).view(1, 2, -1)
