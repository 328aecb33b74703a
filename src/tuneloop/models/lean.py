"""The same layers with fewer passes over memory and fewer tensors kept for the backward pass.

Adapter training leaves the base weights frozen, which general layers do not exploit. Here root-mean-square norms, gated
MLPs and LoRA layers get forward functions with hand-written gradients. Each replacement is compared with the original
on random input when it is installed, and a layer that differs keeps its own code. What may change afterwards (an
adapter that is switched off or merged, a weight that is to be trained) is looked at in every call, and such a layer
runs its original code again.

A replacement is an attribute of the layer and refers to it, so a deep copy of a model would compute with the
original's weights: load a model twice instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Forward = Callable[[Tensor], Tensor]


def install(model: nn.Module) -> Counter[str]:
    """Replace what can be replaced in `model`; return how many layers of each kind now use the lean code."""
    replaced: Counter[str] = Counter()
    for module in model.modules():
        for kind, propose in (("norm", _lean_norm), ("mlp", _lean_mlp), ("lora", _lean_lora)):
            forward, width = propose(module)
            if forward is not None and _agrees(module, forward, width):
                forward.is_lean = True  # type: ignore[attr-defined]
                module.forward = forward
                replaced[kind] += 1
    return replaced


def uninstall(model: nn.Module) -> None:
    """Give every layer its own code back: before layers are exchanged for others, as adding an adapter does."""
    for module in model.modules():
        if getattr(vars(module).get("forward"), "is_lean", False):
            del module.forward


def _agrees(module: nn.Module, forward: Forward, width: int) -> bool:
    parameter = next(module.parameters())
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(1, 3, width, generator=generator).to(parameter.device, parameter.dtype)
    tolerance = 1e-5 if parameter.dtype == torch.float32 else 2e-2
    with torch.no_grad():
        return torch.allclose(forward(probe), module(probe), rtol=tolerance, atol=tolerance)


def _lean_norm(module: nn.Module) -> tuple[Forward | None, int]:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    is_rms_norm = type(module).__name__.endswith("RMSNorm") and isinstance(weight, nn.Parameter)
    if not is_rms_norm or epsilon is None or weight is None or weight.requires_grad:
        return None, 0
    is_shifted = type(module).__name__.startswith("Gemma")  # Gemma stores weight - 1
    original = _own_forward(module)

    def forward(hidden: Tensor) -> Tensor:
        weight: Tensor = module.weight  # type: ignore[assignment]
        if weight.requires_grad:
            return original(hidden)
        return _RmsNorm.apply(hidden, weight + 1 if is_shifted else weight, epsilon)  # type: ignore[no-any-return,no-untyped-call]

    return forward, len(weight)


def _own_forward(module: nn.Module) -> Forward:
    """Return the forward function of the layer's class, whatever has been put in its place."""
    return partial(type(module).forward, module)


def _lean_mlp(module: nn.Module) -> tuple[Forward | None, int]:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    activation = _activation_name(getattr(module, "act_fn", None))
    if activation is None or not all(isinstance(part, nn.Module) for part in parts):
        return None, 0
    gate, up, down = (part for part in parts if part is not None)
    if not hasattr(gate, "in_features"):
        return None, 0

    def forward(hidden: Tensor) -> Tensor:
        result: Tensor = down(_Gated.apply(gate(hidden), up(hidden), activation))  # type: ignore[no-untyped-call]
        return result

    return forward, gate.in_features


def _activation_name(function: Any) -> str | None:
    if isinstance(function, nn.SiLU) or type(function).__name__ == "SiLUActivation":
        return "silu"
    if type(function).__name__ in ("GELUTanh", "PytorchGELUTanh"):
        return "gelu_tanh"
    return None


def _lean_lora(module: Any) -> tuple[Forward | None, int]:
    base = getattr(module, "base_layer", None)
    if type(base) is not nn.Linear or not hasattr(module, "lora_A") or len(module.active_adapters) != 1:
        return None, 0
    parts = {name: (module.lora_A[name], module.lora_B[name]) for name in module.lora_A}
    parts = {name: part for name, part in parts.items() if _is_simple(*part, base.weight.dtype)}
    (active,) = module.active_adapters
    if active not in parts or not _is_plain_lora(module, base, active):
        return None, 0
    original = _own_forward(module)

    def forward(hidden: Tensor) -> Tensor:
        name = module.active_adapters[0] if module.active_adapters else ""
        part = parts.get(name)
        if part is None or not _is_plain_lora(module, base, name):
            return original(hidden)
        down, up = part
        return _LoraLinear.apply(hidden, base.weight, base.bias, down.weight, up.weight, module.scaling[name])  # type: ignore[no-any-return,no-untyped-call]

    return forward, base.in_features


def _is_simple(down: nn.Module, up: nn.Module, dtype: torch.dtype) -> bool:
    weight = getattr(down, "weight", None)
    has_bias = getattr(down, "bias", None) is not None or getattr(up, "bias", None) is not None
    return isinstance(weight, Tensor) and weight.dtype == dtype and not has_bias


def _is_plain_lora(module: Any, base: nn.Linear, name: str) -> bool:
    """Say whether this layer adds the one adapter `name`, without dropout or variants, to a frozen layer."""
    return (
        module.active_adapters == [name]
        and not (module.disable_adapters or module.merged or getattr(module, "lora_variant", None))
        and isinstance(module.lora_dropout[name], nn.Identity)
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
    )


class _RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight with a frozen weight (Zhang & Sennrich 2019); keeps x and one number a token."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        inverse: Tensor = norm.square_().div_(hidden.shape[-1]).add_(epsilon).rsqrt_().to(hidden.dtype)
        ctx.save_for_backward(hidden, inverse, weight)
        return (hidden * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        hidden, inverse, weight = ctx.saved_tensors
        result = grad * weight
        inner = torch.linalg.vecdot(result, hidden).unsqueeze(-1)
        inner.mul_(inverse.pow(3)).div_(hidden.shape[-1])
        return result.mul_(inverse).addcmul_(hidden, inner, value=-1), None, None


class _Gated(torch.autograd.Function):
    """activation(gate) * up; keeps gate and up, not the activation."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _activate(gate, activation).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        inner = grad * up
        if ctx.activation == "silu":
            grad_gate = torch.ops.aten.silu_backward(inner, gate)
        else:
            grad_gate = torch.ops.aten.gelu_backward(inner, gate, approximate="tanh")
        return grad_gate, _activate(gate, ctx.activation).mul_(grad), None


def _activate(gate: Tensor, activation: str) -> Tensor:
    return functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")


class _LoraLinear(torch.autograd.Function):
    """x W' + b + scale (x A') B' with frozen W and b (Hu et al. 2021); keeps x and x A'.

    Shapes: hidden (..., I), weight (O, I), down A (r, I), up B (O, r).
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        flat = hidden.flatten(0, -2)
        low = flat @ down.mT
        output = functional.linear(flat, weight, bias).addmm_(low, up.mT, alpha=scale)
        ctx.save_for_backward(flat, weight, low, down, up)
        ctx.scale, ctx.shape = scale, hidden.shape
        return output.view(*hidden.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, low, down, up = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        grad_low = (grad @ up).mul_(ctx.scale)
        grad_hidden = None
        if ctx.needs_input_grad[0]:
            grad_hidden = (grad @ weight).addmm_(grad_low, down).view(ctx.shape)
        grad_down = grad_low.mT @ flat
        grad_up = (grad.mT @ low).mul_(ctx.scale)
        return grad_hidden, None, None, grad_down, grad_up, None
