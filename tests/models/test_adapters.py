from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from tests.models.loaded import fresh, fresh_model, tiny_folder
from tuneloop.errors import ModelError
from tuneloop.models import lean
from tuneloop.models.adapters import SharedBase

IDS = torch.arange(20, 32)[None]


def make_adapter(folder: Path, seed: int, r: int = 4, modules: str | list[str] = "all-linear") -> Path:
    """Save a random adapter for the tiny Llama, with weights that matter."""
    model = get_peft_model(fresh_model("llama"), LoraConfig(r=r, target_modules=modules, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.peft_config["default"].base_model_name_or_path = str(tiny_folder("llama"))
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        "a": make_adapter(root / "a", 1),
        "b": make_adapter(root / "b", 2, r=2),
        "attention": make_adapter(root / "attention", 3, modules=["q_proj", "v_proj"]),
    }


@torch.inference_mode()
def alone(folder: Path | None) -> Tensor:
    """Return the logits of base model and one adapter, loaded by PEFT as usual."""
    model = fresh_model("llama")
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder)).eval()
    logits: Tensor = model(input_ids=IDS).logits
    return logits


@torch.inference_mode()
def heard(base: SharedBase, name: str | None) -> Tensor:
    with base.using(name) as loaded:
        logits: Tensor = loaded.model(input_ids=IDS).logits
    return logits


def opened_base() -> SharedBase:
    loaded = fresh("llama")
    loaded.model.requires_grad_(False)
    lean.install(loaded.model)
    return SharedBase(loaded)


def check_alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_each_adapter_computes_on_the_shared_base_what_it_computes_alone(folders: dict[str, Path]) -> None:
    base = opened_base()
    for name, folder in folders.items():
        base.add(name, folder)
    expected: dict[str | None, Tensor] = {None: alone(None)}
    expected |= {name: alone(folder) for name, folder in folders.items()}
    for turn in ("a", "b", None, "attention", "a", None, "b", "attention"):
        check_alike(heard(base, turn), expected[turn])
    assert (expected["a"] - expected["b"]).abs().max() > 0.1 and (expected["a"] - expected[None]).abs().max() > 0.1


def test_adapters_that_come_and_go_leave_the_others_as_they_are(folders: dict[str, Path]) -> None:
    base = opened_base()
    base.add("a", folders["a"])
    before = heard(base, "a")
    base.add("b", folders["b"])
    assert torch.equal(heard(base, "a"), before)
    base.remove("b")
    assert base.adapters == ("a",) and torch.equal(heard(base, "a"), before)
    base.remove("a")
    check_alike(heard(base, None), alone(None))
    base.add("a", folders["attention"])
    check_alike(heard(base, "a"), alone(folders["attention"]))


def test_a_damaged_adapter_is_refused_and_the_others_answer_on(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["b"], tmp_path / "b")
    weights = tmp_path / "b" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    for others in ((), ("a",)):
        base = opened_base()
        for name in others:
            base.add(name, folders[name])
        with pytest.raises(ModelError, match="the adapter cannot be loaded") as caught:
            base.add("b", tmp_path / "b")
        assert caught.value.where == str(tmp_path / "b") and base.adapters == others
        check_alike(heard(base, None), alone(None))
        for name in ("a", "b"):
            if name not in others:
                base.add(name, folders[name])
            check_alike(heard(base, name), alone(folders[name]))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        opened_base().add("a", tmp_path)


def test_a_name_is_given_once(folders: dict[str, Path]) -> None:
    base = opened_base()
    base.add("a", folders["a"])
    with pytest.raises(ValueError, match="there is an adapter 'a' already"):
        base.add("a", folders["b"])


def test_switching_computes_and_copies_no_weights(folders: dict[str, Path]) -> None:
    base = opened_base()
    base.add("a", folders["a"])
    base.add("b", folders["b"])
    before = {name: (part.data_ptr(), part._version) for name, part in base.loaded.model.named_parameters()}
    for name in ("a", "b", None, "a"):
        with base.using(name):
            pass
    after = {name: (part.data_ptr(), part._version) for name, part in base.loaded.model.named_parameters()}
    assert after == before


def test_threads_that_use_different_adapters_never_mix_them(folders: dict[str, Path]) -> None:
    base = opened_base()
    base.add("a", folders["a"])
    base.add("b", folders["b"])
    expected = {name: heard(base, name) for name in ("a", "b")}
    wrong: list[str] = []

    def ask(name: str) -> None:
        wrong.extend(name for _ in range(10) if not torch.equal(heard(base, name), expected[name]))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b", "a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_adapted_layers_run_the_lean_code_whichever_adapter_is_active(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = opened_base()
    base.add("a", folders["a"])
    base.add("b", folders["b"])
    calls: list[int] = []
    original = lean._LoraLinear.forward

    def counted(*parts: Any) -> Tensor:
        calls.append(1)
        return original(*parts)

    monkeypatch.setattr(lean._LoraLinear, "forward", staticmethod(counted))
    counts = []
    for name in ("a", "b", None):
        calls.clear()
        heard(base, name)
        counts.append(len(calls))
    assert counts == [14, 14, 0]  # 7 linear layers in each of 2 blocks
