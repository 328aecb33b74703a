from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.activations import ACT2FN

from tests.models.loaded import fresh_model
from tests.models.tiny import FAMILIES, Family
from tuneloop.models import lean

IDS = torch.tensor([[5, 9, 33, 70, 8]])


class MadeRMSNorm(nn.Module):
    """As Llama's."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.3 * torch.randn(width), requires_grad=False)
        self.variance_epsilon = 1e-5

    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


class GemmaRMSNorm(nn.Module):
    """As Gemma's."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(width), requires_grad=False)
        self.eps = 1e-6

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.eps) * (1 + self.weight)


class CentredRMSNorm(MadeRMSNorm):
    """Has the looks of a root-mean-square norm and is another one."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden - hidden.mean(-1, keepdim=True))


class MadeMlp(nn.Module):
    def __init__(self, activation: str, factor: float = 1.0) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 12)
        self.act_fn, self.factor = ACT2FN[activation], factor
        self.requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.factor * self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))
        return result


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 16), nn.Linear(16, 12, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(hidden))
        return result


def adapted(layers: tuple[str, ...] = ("first", "second"), **settings: Any) -> Any:
    """Two linear layers, one with a bias, with LoRA that does something."""
    torch.manual_seed(1)
    model = get_peft_model(Linears(), LoraConfig(r=3, lora_alpha=6, target_modules=list(layers), **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def outcome(module: Callable[[Tensor], Tensor], trained: list[nn.Parameter]) -> list[Tensor]:
    """Return output and gradients (of the input, then of the parameters) for one random input."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 7, 12, generator=generator, requires_grad=True)
    out = module(hidden)
    return [out.detach(), *torch.autograd.grad(out, [hidden, *trained], torch.randn(out.shape, generator=generator))]


def check_equal(module: nn.Module, kinds: dict[str, int]) -> None:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    expected = outcome(module, trained)
    assert dict(lean.install(module)) == kinds
    for found, wanted in zip(outcome(module, trained), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (MadeRMSNorm, {"norm": 1}),
        (GemmaRMSNorm, {"norm": 1}),
        (lambda: MadeMlp("silu"), {"mlp": 1}),
        (lambda: MadeMlp("gelu_pytorch_tanh"), {"mlp": 1}),
        (adapted, {"lora": 2}),
    ],
    ids=["norm", "gemma-norm", "silu", "gelu", "lora"],
)
def test_a_lean_layer_equals_its_original_forward_and_backward(
    make: Callable[[], nn.Module], kinds: dict[str, int]
) -> None:
    torch.manual_seed(0)
    check_equal(make(), kinds)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_a_norm_and_its_gradient_stay_near_those_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = MadeRMSNorm(64)
    hidden = 30 * torch.randn(4, 64)
    grads = []
    for kind in (torch.float32, dtype):
        norm.to(kind)
        norm.forward = MadeRMSNorm.forward.__get__(norm)  # type: ignore[method-assign]
        if kind == dtype:
            assert lean.install(norm)["norm"] == 1
        given = hidden.to(kind).requires_grad_()
        grads.append(torch.autograd.grad(norm(given), given, torch.ones(4, 64, dtype=kind))[0].float())
    assert (grads[1] - grads[0]).norm() / grads[0].norm() < 0.03


@pytest.mark.parametrize(
    "make",
    [
        CentredRMSNorm,
        lambda: MadeMlp("silu", factor=1.5),
        lambda: MadeMlp("relu"),
        lambda: MadeMlp("gelu"),
        lambda: nn.LayerNorm(12),
        lambda: adapted(lora_dropout=0.1),
        lambda: adapted(use_dora=True),
        lambda: adapted(("first",), lora_bias=True),
    ],
    ids=["another-norm", "another-mlp", "relu", "exact-gelu", "layer-norm", "dropout", "dora", "lora-bias"],
)
def test_a_layer_that_does_something_else_is_left_alone(make: Callable[[], nn.Module]) -> None:
    module = make()
    assert not lean.install(module)
    assert not any("forward" in vars(part) for part in module.modules())


def test_two_active_adapters_are_left_alone() -> None:
    model = adapted()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
    model.base_model.set_adapter(["default", "other"])
    assert not lean.install(model)


def test_a_merged_adapter_is_left_alone() -> None:
    model = adapted()
    model.merge_adapter()
    assert not lean.install(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_norms_and_mlps_of_a_frozen_model_are_replaced_once_or_twice_alike(family: Family) -> None:
    model = fresh_model(family).requires_grad_(False)
    before = model(input_ids=IDS).logits
    first = lean.install(model)
    once = model(input_ids=IDS).logits
    second = lean.install(model)
    assert first == second
    assert first["mlp"] == model.config.num_hidden_layers
    assert first["norm"] == sum(type(module).__name__.endswith("RMSNorm") for module in model.modules())
    torch.testing.assert_close(once, before, rtol=1e-4, atol=1e-4)
    assert torch.equal(model(input_ids=IDS).logits, once)


def test_layers_whose_weights_are_to_be_trained_are_left_alone() -> None:
    model = fresh_model("llama").requires_grad_(True)
    assert lean.install(model).keys() == {"mlp"}  # an MLP's own weights are its linear layers'


def test_a_norm_whose_weight_is_to_be_trained_after_all_gets_its_gradient() -> None:
    norm = MadeRMSNorm()
    assert lean.install(norm)["norm"] == 1
    norm.weight.requires_grad_(True)
    norm(torch.randn(2, 12)).sum().backward()
    assert norm.weight.grad is not None and norm.weight.grad.abs().sum() > 0


def test_an_adapter_that_is_switched_off_adds_nothing_and_adds_again_when_it_is_on() -> None:
    model, hidden = adapted(), torch.randn(3, 12)
    with torch.no_grad(), model.disable_adapter():
        expected = model(hidden)
    lean.install(model)
    with_adapter = model(hidden)
    with model.disable_adapter():
        assert torch.allclose(model(hidden), expected)
    assert torch.equal(model(hidden), with_adapter)
    assert not torch.allclose(with_adapter, expected)


def test_merging_after_the_installation_does_not_add_the_adapter_twice() -> None:
    model, hidden = adapted(), torch.randn(3, 12)
    lean.install(model)
    expected = model(hidden)
    model.merge_adapter()
    torch.testing.assert_close(model(hidden), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(model(hidden), expected, rtol=1e-4, atol=1e-4)


def test_new_weights_of_a_replaced_layer_are_used() -> None:
    norm = MadeRMSNorm()
    lean.install(norm)
    norm.weight = nn.Parameter(torch.zeros(12), requires_grad=False)
    assert not norm(torch.randn(2, 12)).any()
