"""Small things to export: tiny models with random adapters, and a trained project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tests.train.projects import config_of, make_project, prepared, store_of, trained
from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config

PROMPT = [1, 30, 40, 50, 60, 70, 80, 90]


def make_adapter(folder: Path, base: Path, *, std: float = 0.2, **settings: Any) -> Path:
    """Save a random adapter of the model in `base`, large enough to change what it says; returns `folder`."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    adapted: PeftModel = get_peft_model(model, LoraConfig(**options))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        for name, parameter in sorted(adapted.named_parameters()):
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * std)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def logits_of(model: Any) -> torch.Tensor:
    """Return the logits (T, V) of a fixed prompt in float32."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([PROMPT])).logits[0]
    return logits.float()


def logits_with_adapter(base: Path, adapter: Path) -> torch.Tensor:
    """Return what PEFT makes of base and adapter."""
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    return logits_of(model.eval())


def logits_of_folder(folder: Path) -> torch.Tensor:
    """Return what transformers makes of a model folder, in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return logits_of(model.eval())


def trained_project(folder: Path, model: Path | None = None, **settings: Any) -> tuple[Config, Artifact, ArtifactStore]:
    """Return configuration, run and store of a small project that was prepared and trained."""
    config = config_of(make_project(folder, model, rows=60), epochs=1.0, **settings)
    prepared(config)
    return config, trained(config), store_of(config)


def with_export(config: Config, **settings: Any) -> Config:
    """Return the configuration with these settings in its section `export`."""
    export = config.export.model_validate(config.export.model_dump() | settings)
    return config.model_copy(update={"export": export})
