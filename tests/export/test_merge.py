from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.export.exporting import logits_of_folder, logits_with_adapter, make_adapter
from tests.models.tiny import FAMILIES, Family, make_tiny_model
from tuneloop.config.schema import ModelConfig
from tuneloop.errors import ModelError
from tuneloop.export.merge import Merged, merge
from tuneloop.progress import SILENT


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with tied embeddings, to be read only."""
    return make_tiny_model(tmp_path_factory.mktemp("merge") / "base")


def merged(base: Path, adapter: Path, target: Path, *, dtype: str = "auto", size: str = "4GB") -> Merged:
    return merge(ModelConfig(base_model=str(base)), adapter, target, dtype=dtype, max_shard_size=size, progress=SILENT)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.std())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_model_of_every_family_says_what_base_and_adapter_say(tmp_path: Path, family: Family) -> None:
    base = make_tiny_model(tmp_path / "base", family)
    adapter = make_adapter(tmp_path / "adapter", base)
    done = merged(base, adapter, tmp_path / "merged")
    wanted = logits_with_adapter(base, adapter)
    assert done.layers == 7 * (3 if family == "mistral" else 2) and not done.is_untied
    assert difference(logits_of_folder(tmp_path / "merged"), wanted) < 1e-4
    assert difference(logits_of_folder(base), wanted) > 0.1  # the adapter changes something


@pytest.mark.parametrize(
    "settings",
    [{"use_rslora": True}, {"use_dora": True}, {"lora_alpha": 64}, {"rank_pattern": {"q_proj": 8}}],
    ids=["rank-stabilised", "DoRA", "another scale", "ranks of their own"],
)
def test_every_way_of_scaling_an_adapter_is_merged_as_peft_computes_it(
    base: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, **settings)
    merged(base, adapter, tmp_path / "merged")
    assert difference(logits_of_folder(tmp_path / "merged"), logits_with_adapter(base, adapter)) < 1e-4


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # PEFT's, when the adapter is made
@pytest.mark.parametrize("end", ["lm_head", "embed_tokens"])
def test_adapting_one_end_of_tied_embeddings_unties_them_instead_of_changing_both(
    base: Path, tmp_path: Path, end: str
) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj", end])
    done = merged(base, adapter, tmp_path / "merged")
    assert done.is_untied
    assert not json.loads((tmp_path / "merged" / "config.json").read_bytes())["tie_word_embeddings"]
    assert difference(logits_of_folder(tmp_path / "merged"), logits_with_adapter(base, adapter)) < 1e-4


def test_half_precision_rounds_the_merged_weights_once(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    merged(base, adapter, tmp_path / "exact")
    assert merged(base, adapter, tmp_path / "half", dtype="bfloat16").dtype == "bfloat16"
    exact, half = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "half"))
    adapted = [name for name in exact if "_proj" in name]
    assert len(adapted) == 14
    assert all(torch.equal(half[name], exact[name].to(torch.bfloat16)) for name in adapted)
    assert json.loads((tmp_path / "half" / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_auto_keeps_the_dtype_of_the_base_model(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    merged(base, adapter, tmp_path / "half", dtype="bfloat16")
    again = merged(tmp_path / "half", make_adapter(tmp_path / "second", base), tmp_path / "merged")
    assert again.dtype == "bfloat16"
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_weights_that_float16_cannot_hold_are_refused_with_the_way_out(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base, std=200.0)
    with pytest.raises(ModelError, match="do not fit into float16") as caught:
        merged(base, adapter, tmp_path / "merged", dtype="float16")
    assert caught.value.where == "export.dtype"
    assert merged(base, adapter, tmp_path / "wide", dtype="bfloat16").layers == 14


def test_weights_are_split_into_files_of_the_wanted_size(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    merged(base, adapter, tmp_path / "merged", size="100KB")
    files = sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors"))
    assert len(files) > 1 and files[0].startswith("model-00001-of-")
    assert difference(logits_of_folder(tmp_path / "merged"), logits_with_adapter(base, adapter)) < 1e-4


def test_servers_get_greedy_defaults_and_the_token_that_ends_an_answer(base: Path, tmp_path: Path) -> None:
    sampling = make_tiny_model(tmp_path / "base")
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 0}
    (sampling / "generation_config.json").write_text(json.dumps(settings))
    merged(sampling, make_adapter(tmp_path / "adapter", base), tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / "generation_config.json").read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert written["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>"), 0]
    assert not {"temperature", "top_p", "top_k"} & written.keys() and not written.get("do_sample")


def test_an_adapter_that_is_not_whole_or_not_finite_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: torch.full_like(weights[name], torch.nan)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        merged(base, adapter, tmp_path / "merged")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        merged(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", "mistral")
    adapter = make_adapter(tmp_path / "adapter", other)
    with pytest.raises(ModelError, match="cannot be merged"):
        merged(base, adapter, tmp_path / "merged")
