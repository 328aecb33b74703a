"""Models quantised by llm-compressor in its own environment, loaded by transformers in ours, and asked the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.models.tiny import make_tiny_model
from tuneloop.config.schema import ModelConfig
from tuneloop.environments import Environment
from tuneloop.export.quantize import (
    Quantized,
    calibration_rows,
    quantize,
)
from tuneloop.forms import FormName
from tuneloop.infer.predict import Predictor
from tuneloop.models.embedded import embedded_base_model
from tuneloop.models.load import load_model
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT
from tuneloop.records import Example

DOES = {
    "cat": ("meows", "purrs", "licks its paws", "sleeps on the sofa"),
    "dog": ("barks", "wags its tail", "fetches the stick", "guards the house"),
    "bird": ("sings", "flies away", "builds a nest", "sits on the roof"),
}
EXAMPLES = [
    Example(id=f"{label}-{n}-{does}", text=f"Number {n} of the {age} ones {does} at {n + 7} o'clock.", label=label)
    for n in range(4)
    for label, doings in DOES.items()
    for does in doings
    for age in ("old", "young")
]
TASK = TaskPrompt("classify", "Say which animal it is.", tuple(sorted(DOES)), ())


def predictor_of(folder: Path) -> Predictor:
    return Predictor(load_model(ModelConfig(base_model=str(folder)), SILENT), TASK)


def quantised(source: Path, target: Path, form: FormName, environment: Environment) -> Quantized:
    chat = load_model(ModelConfig(base_model=str(source)), SILENT).chat
    rows = calibration_rows(EXAMPLES, TASK, chat, count=24, max_tokens=512, seed=13)
    return quantize(source, target, form, rows, environment, SILENT, group_size=128)


def agreement(one: Predictor, other: Predictor) -> float:
    texts = [example.text for example in EXAMPLES]
    pairs = zip(one.predict(texts, "labels"), other.predict(texts, "labels"), strict=True)
    return sum(first.label == second.label for first, second in pairs) / len(texts)


@pytest.mark.parametrize("form", ["int8", "gptq-4bit", "awq-4bit"])
def test_a_tiny_model_is_quantised_loads_and_mostly_answers_the_same(
    llm_compressor: Environment, tmp_path: Path, form: FormName
) -> None:
    source = make_tiny_model(tmp_path / "tiny")
    made = quantised(source, tmp_path / form, form, llm_compressor)
    assert (made.layers, made.calibration_examples) == (14, 24)
    assert made.group_size == (None if form == "int8" else 64)
    assert agreement(predictor_of(source), predictor_of(tmp_path / form)) >= 0.8
    settings = json.loads((tmp_path / form / "config.json").read_bytes())["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors" and "lm_head" in settings["ignore"]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / form / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(("form", "least"), [("int8", 0.95), ("gptq-4bit", 0.7)])
def test_the_embedded_model_is_smaller_and_mostly_answers_the_same(
    llm_compressor: Environment, tmp_path: Path, form: FormName, least: float
) -> None:
    source = embedded_base_model(SILENT)
    made = quantised(source, tmp_path / form, form, llm_compressor)
    assert made.layers == 210
    assert made.size_bytes < 0.6 * (source / "model.safetensors").stat().st_size
    assert agreement(predictor_of(source), predictor_of(tmp_path / form)) >= least
