from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.loaded import fresh_model, tiny_folder
from tuneloop.config.schema import ModelConfig
from tuneloop.errors import ModelError, NetworkError, UnsafeModelError
from tuneloop.models.load import base_model_folder, check_folder, fingerprint, load_model
from tuneloop.progress import SILENT
from tuneloop.train.adapters import add_lora, save_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete model folder that a test may damage."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def settings(folder: Path | str, **more: Any) -> ModelConfig:
    return ModelConfig(base_model=str(folder), dtype="float32", **more)


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    remove(folder, "*.safetensors")


@pytest.mark.parametrize(
    ("damage", "kind", "message", "hint"),
    [
        (lambda f: remove(f, "config.json"), ModelError, "no config.json", "the weights and the tokenizer"),
        (lambda f: remove(f, "tokenizer.json"), ModelError, "no tokenizer", "save_pretrained"),
        (lambda f: remove(f, "*.safetensors"), ModelError, "no weights", "Fetch the model again"),
        (pickle_weights, UnsafeModelError, "pickled (pytorch_model.bin)", "model.allow_pickle: true"),
        (
            lambda f: edit_json(f / "config.json", auto_map={"AutoModelForCausalLM": "code.Model"}),
            UnsafeModelError,
            "run Python code",
            "model.trust_remote_code: true",
        ),
        (
            lambda f: edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", None]}),
            UnsafeModelError,
            "run Python code",
            "model.trust_remote_code: true",
        ),
        (lambda f: truncate(f / "config.json"), ModelError, "not valid JSON", "this file is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), ModelError, "not a JSON object", "this file is damaged"),
        (lambda f: truncate(f / "tokenizer_config.json"), ModelError, "not valid JSON", "this file is damaged"),
        (lambda f: truncate(f / "tokenizer.json"), ModelError, "cannot be loaded", "a file is damaged"),
        (lambda f: truncate(f / "model.safetensors"), ModelError, "cannot be loaded", "a file is damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ModelError, "cannot be loaded", "a file is damaged"),
        (lambda f: edit_json(f / "config.json", model_type="no-such"), ModelError, "cannot be loaded", "transformers"),
        (lambda f: edit_json(f / "config.json", hidden_size=128), ModelError, "cannot be loaded", "complete"),
        (drop_a_weight, ModelError, "1 weights are missing, model.layers.1.mlp.up_proj.weight", "belongs to these"),
        (
            lambda f: edit_json(f / "config.json", num_hidden_layers=3),
            ModelError,
            "weights are missing, model.layers.2",
            "belongs to these",
        ),
    ],
)
def test_a_folder_that_is_damaged_or_unsafe_is_refused_with_the_reason_and_advice(
    folder: Path, damage: Callable[[Path], object], kind: type[ModelError], message: str, hint: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load_model(settings(folder), SILENT)
    assert type(caught.value) is kind
    assert message in caught.value.message and "\n" not in caught.value.message
    assert caught.value.where.startswith(str(folder))
    assert hint in caught.value.hint


def test_a_complete_folder_is_loaded_for_reading_with_its_own_weights(folder: Path) -> None:
    loaded = load_model(settings(folder), SILENT)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.dtype == loaded.model.dtype == torch.float32
    weights = load_file(folder / "model.safetensors")
    assert torch.equal(loaded.model.state_dict()["model.norm.weight"], weights["model.norm.weight"].to(loaded.device))
    assert loaded.chat.render("s", "d").startswith("<|im_start|>system\ns")


def test_code_in_a_folder_is_not_run_when_it_is_refused(folder: Path, tmp_path: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UnsafeModelError):
        load_model(settings(folder), SILENT)
    assert not (tmp_path / "ran").exists()


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_weights_are_not_opened_when_they_are_refused(folder: Path, tmp_path: Path) -> None:
    remove(folder, "*.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
    with pytest.raises(UnsafeModelError):
        load_model(settings(folder), SILENT)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_read_when_they_are_asked_for(folder: Path) -> None:
    expected = load_file(folder / "model.safetensors")["model.norm.weight"]
    pickle_weights(folder)
    loaded = load_model(settings(folder, allow_pickle=True), SILENT)
    assert torch.equal(loaded.model.state_dict()["model.norm.weight"].cpu(), expected)


def test_allowing_pickle_does_not_keep_a_folder_of_safetensors_from_loading(folder: Path) -> None:
    assert load_model(settings(folder, allow_pickle=True), SILENT).model.num_parameters() > 0


def test_what_is_asked_for_by_name_passes_the_check(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoConfig": "code.Config"})
    check_folder(folder, trust_remote_code=True)
    pickle_weights(folder)
    check_folder(folder, trust_remote_code=True, allow_pickle=True)


def test_an_unknown_name_without_network_is_an_error_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(NetworkError, match="cannot fetch 'nobody/no-such-model'") as caught:
        base_model_folder(settings("nobody/no-such-model"), SILENT)
    assert caught.value.where == "model.base_model"
    assert "model.base_model: embedded" in caught.value.hint


def test_a_name_that_cannot_be_on_the_hub_is_said_to_be_neither_folder_nor_model(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(ModelError, match="neither a folder here nor a model") as caught:
        base_model_folder(settings(tmp_path / "my-modle"), SILENT)
    assert f"Did you mean '{tmp_path / 'my-model'}'?" in caught.value.message


def answered(status: int, code: str) -> Callable[..., Any]:
    """Return what takes `snapshot_download`'s place and fails as the Hub would."""
    from huggingface_hub.utils._http import hf_raise_for_status

    def download(*_: object, **__: object) -> None:
        request = httpx.Request("GET", "https://hub.test/api/models/a/b/revision/v9")
        hf_raise_for_status(httpx.Response(status, headers={"X-Error-Code": code}, request=request))

    return download


@pytest.mark.parametrize(
    ("status", "code", "kind", "message", "hint"),
    [
        (404, "RepoNotFound", ModelError, "neither a folder here nor a model on the Hub", "Hub id"),
        (403, "GatedRepo", ModelError, "accepted its terms", "HF_TOKEN"),
        (404, "RevisionNotFound", ModelError, "no revision 'v9'", "model.revision"),
        (500, "", NetworkError, "cannot fetch 'a/b'", "Check the network"),
    ],
)
def test_each_refusal_of_the_hub_has_its_own_message(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str, kind: type[Exception], message: str, hint: str
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", answered(status, code))
    with pytest.raises((ModelError, NetworkError)) as caught:
        base_model_folder(settings("a/b", revision="v9"), SILENT)
    assert type(caught.value) is kind
    assert message in caught.value.message and hint in caught.value.hint


def test_a_connection_that_breaks_is_an_error_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise httpx.ReadError("connection reset")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(NetworkError, match="ReadError"):
        base_model_folder(settings("a/b"), SILENT)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    model = add_lora(fresh_model("llama"), r=2, alpha=4, dropout=0.0, target_modules="all-linear", seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    save_adapter(model, tmp_path / "adapter", base_model="somewhere/else")
    return tmp_path / "adapter"


def test_an_adapter_changes_what_the_model_says(folder: Path, adapter: Path) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain, tuned = (load_model(settings(folder), SILENT, path) for path in (None, adapter))
        outputs = [loaded.model(input_ids=ids.to(loaded.device)).logits for loaded in (plain, tuned)]
    assert not torch.allclose(*outputs)
    assert not any(parameter.requires_grad for parameter in tuned.model.parameters())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: remove(a, "adapter_model.safetensors"), "no adapter_model.safetensors"),
        (lambda a: truncate(a / "adapter_model.safetensors"), "the adapter cannot be loaded"),
        (lambda a: truncate(a / "adapter_config.json"), "the adapter cannot be loaded"),
        (lambda a: remove(a, "adapter_config.json"), "the adapter cannot be loaded"),
        (lambda a: edit_json(a / "adapter_config.json", r=3), "the adapter cannot be loaded"),
    ],
)
def test_a_damaged_adapter_is_refused(
    folder: Path, adapter: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(adapter)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(settings(folder), SILENT, adapter)
    assert caught.value.where == str(adapter)


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: grow(f / "model.safetensors"),
        lambda f: edit_json(f / "config.json", rope_theta=5.0),
        lambda f: edit_json(f / "tokenizer_config.json", model_max_length=7),
        lambda f: (f / "chat_template.jinja").write_text("changed"),
        lambda f: (f / "model.safetensors").rename(f / "other.safetensors"),
        lambda f: remove(f, "generation_config.json"),
    ],
)
def test_the_fingerprint_changes_when_the_model_does(folder: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


def test_the_fingerprint_is_the_same_for_a_copy_elsewhere_and_blind_to_other_files(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "README.md").write_text("words")
    assert fingerprint(folder) == fingerprint(tiny_folder("llama"))
    assert len(fingerprint(folder)) == 16
