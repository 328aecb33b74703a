"""What surrounds llm-compressor. That it quantises and the result answers is in tests/integration/test_quantize.py."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest
from transformers import AutoTokenizer

from tests.models.tiny import make_tiny_model
from tests.test_wheels import Listener
from tuneloop.environments import LLM_COMPRESSOR, Environment
from tuneloop.errors import ModelError, TuneloopError, UsageError
from tuneloop.export import quantize as module
from tuneloop.export.quantize import calibration_rows, check_loads, quantize, require_quantizable
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT
from tuneloop.records import Example

TASK = TaskPrompt("classify", "Say which animal it is.", ("bird", "cat"), ())
EXAMPLES = [
    Example(id=f"{n:02}", text=f"Number {n} {'sings' if n % 4 else 'meows'}", label="bird" if n % 4 else "cat")
    for n in range(40)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """This very interpreter in the place of llm-compressor's, which it lacks."""
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    return Environment(LLM_COMPRESSOR, Path(sys.prefix), Path(sys.executable))


def test_calibration_documents_are_what_the_model_was_trained_on_to_the_last_token(model: Path) -> None:
    chat = ChatFormat(AutoTokenizer.from_pretrained(model))
    rows = calibration_rows(EXAMPLES, TASK, chat, count=8, max_tokens=200, seed=1)
    texts = [chat.tokenizer.decode(row) for row in rows]
    for text in texts:
        shown = next(example for example in EXAMPLES if f"{example.text}<" in text)
        assert text == chat.render(TASK.system(), shown.text) + f"{shown.label}<|im_end|>"
    assert sum("cat<|im_end|>" in text for text in texts) == 2  # a quarter, as in the examples
    assert rows == calibration_rows(EXAMPLES, TASK, chat, count=8, max_tokens=200, seed=1)


def test_a_long_document_is_cut_and_its_answer_is_not(model: Path) -> None:
    chat = ChatFormat(AutoTokenizer.from_pretrained(model))
    (row,) = calibration_rows(
        [Example(id="1", text="meows " * 500, label="cat")], TASK, chat, count=8, max_tokens=150, seed=1
    )
    assert len(row) <= 150 and str(chat.tokenizer.decode(row)).endswith("cat<|im_end|>")


def test_a_failure_of_llm_compressor_is_told_in_its_words(here: Environment, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        quantize(model, tmp_path / "out", "gptq-4bit", [[1, 2, 3]], here, SILENT)
    assert "ModuleNotFoundError: No module named 'llmcompressor'" in caught.value.message
    assert "gptq-4bit" in caught.value.where


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("import sys; print('not an event'); sys.exit('out of luck')", "exit code 1 (out of luck)"),
    ],
)
def test_a_process_that_ends_early_is_explained(
    here: Environment, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(code)
    monkeypatch.setattr(module, "WORKER", worker)
    with pytest.raises(TuneloopError) as caught:
        quantize(model, tmp_path / "out", "int8", [], here, SILENT)
    assert said in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


def test_without_a_reader_for_the_format_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        require_quantizable("int8")
    assert "pip install 'tuneloop[quantized]'" in caught.value.hint


def test_how_far_it_is_comes_from_the_bars_of_llm_compressor(
    here: Environment, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = [f"\r({n}/4): {what}: 50%" for n in (1, 2, 3, 4) for what in ("Calibrating", "Propagating")]
    code = f"""
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location("worker", {str(module.WORKER)!r})
        worker = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(worker)
        worker.quantise = lambda request, tell: [sys.stderr.write(bar) for bar in {bars!r}] and 1 / 0
        sys.exit(worker.main(sys.argv[1]))
    """
    (tmp_path / "worker.py").write_text(dedent(code))
    monkeypatch.setattr(module, "WORKER", tmp_path / "worker.py")
    listener = Listener()
    with pytest.raises(ModelError, match="ZeroDivisionError: division by zero"):
        quantize(model, tmp_path / "out", "gptq-4bit", [[1]], here, listener)
    assert listener.tasks["Quantising to gptq-4bit"] == [-1.0, 0.0, 0.25, 0.25, 0.25]


def test_a_folder_that_transformers_cannot_load_whole_is_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    check_loads(model, [1, 2, 3])
    weights = load_file(model / "model.safetensors")
    broken = make_tiny_model(tmp_path / "broken")
    weights.pop("model.layers.0.mlp.up_proj.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights do not fit, model\.layers\.0\.mlp\.up_proj\.weight"):
        check_loads(broken, [1, 2, 3])
    (broken / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="does not load"):
        check_loads(broken, [1, 2, 3])
