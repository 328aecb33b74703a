"""Adapters on a frozen base model, in PEFT's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.errors import ConfigError, nearest


def add_lora(
    model: PreTrainedModel,
    *,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: Literal["all-linear"] | list[str],
    seed: int,
) -> PeftModel:
    """Freeze the model and add LoRA layers, whose first weights depend on `seed` alone.

    Raises: ConfigError: no module has one of the given names.
    """
    if target_modules != "all-linear":
        _check_names(model, target_modules)
    settings = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # only divided by r
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, settings)
    return adapted


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def adapter_state(model: PeftModel) -> dict[str, Tensor]:
    """Return a copy of the adapter's weights as contiguous CPU tensors by PEFT's names; training goes on without it."""
    state: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in sorted(state.items())}


def load_adapter_state(model: PeftModel, state: dict[str, Tensor]) -> None:
    """Put weights from `adapter_state` back."""
    set_peft_model_state_dict(model, state)


def save_adapter(model: PeftModel, folder: Path, *, base_model: str) -> None:
    """Write the adapter as PEFT does; `base_model` is the name recorded in it.

    Embeddings are never part of it. PEFT's "auto" would ask the Hub about `base_model` to find that out.
    """
    settings: Any = model.peft_config["default"]
    settings.base_model_name_or_path = base_model
    settings.target_modules = sorted(settings.target_modules)  # a set would be written in another order each time
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def _check_names(model: PreTrainedModel, names: list[str]) -> None:
    known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if not list(module.children())})
    for name in names:
        if not any(module == name or module.endswith(f".{name}") for module, _ in model.named_modules()):
            raise ConfigError(
                f"the model has no module {name!r}." + nearest(name, known),
                where="train.lora.target_modules",
                hint=f"Use all-linear, or names among: {', '.join(known)}.",
            )
