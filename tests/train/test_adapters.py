from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from tuneloop.errors import ConfigError
from tuneloop.train.adapters import adapter_state, add_lora, load_adapter_state, save_adapter, trainable


def base(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def lora(model: PreTrainedModel, **changes: object) -> PeftModel:
    settings = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "seed": 3}
    return add_lora(model, **{**settings, **changes})  # type: ignore[arg-type]


def disturb(model: PeftModel) -> None:
    """Give the adapter weights that change answers: fresh ones are zero on one side."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(model):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_only_the_adapter_is_trained_and_it_changes_nothing_at_first(tiny_model: Path) -> None:
    ids = torch.arange(3, 20)[None]
    before = base(tiny_model)(input_ids=ids).logits
    model = lora(base(tiny_model))
    assert torch.equal(model(input_ids=ids).logits, before)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    assert not any("lm_head" in name for name in names)


def test_the_first_weights_depend_on_the_seed_and_leave_the_random_state_alone(tiny_model: Path) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first = adapter_state(lora(base(tiny_model)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again, other = adapter_state(lora(base(tiny_model))), adapter_state(lora(base(tiny_model), seed=4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_module_name_with_a_typo_is_refused_with_the_nearest_one(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="'q_prj'") as caught:
        lora(base(tiny_model), target_modules=["v_proj", "q_prj"])
    assert "Did you mean 'q_proj'?" in caught.value.message
    assert caught.value.where == "train.lora.target_modules"
    assert "gate_proj" in caught.value.hint


def test_named_modules_alone_get_adapters(tiny_model: Path) -> None:
    names = adapter_state(lora(base(tiny_model), target_modules=["q_proj", "v_proj"])).keys()
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}


def test_a_kept_state_does_not_change_while_training_goes_on(tiny_model: Path) -> None:
    model = lora(base(tiny_model))
    state = adapter_state(model)
    copies = {name: tensor.clone() for name, tensor in state.items()}
    disturb(model)
    assert all(torch.equal(state[name], copies[name]) for name in state)
    assert any(not torch.equal(state[name], tensor) for name, tensor in adapter_state(model).items())
    load_adapter_state(model, state)
    assert all(torch.equal(state[name], tensor) for name, tensor in adapter_state(model).items())


def test_a_saved_adapter_loads_in_plain_peft_with_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    model = lora(base(tiny_model))
    disturb(model)
    save_adapter(model, tmp_path / "adapter", base_model="some/base-model")
    ids = torch.arange(3, 20)[None]
    loaded = PeftModel.from_pretrained(base(tiny_model), str(tmp_path / "adapter"))
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "some/base-model"
    assert settings["r"] == 4


def test_saving_asks_no_hub_about_the_base_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peft.utils.save_and_load as saving

    def refuse(*_: object, **__: object) -> bool:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(saving, "check_file_exists_on_hf_hub", refuse)
    save_adapter(lora(base(tiny_model)), tmp_path / "adapter", base_model="embedded")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
