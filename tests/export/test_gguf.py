from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", exc_type=ImportError)

from tests.infer.engines.gguf_files import gguf_file, merged_folder
from tests.models.tiny import make_tiny_model
from tuneloop.errors import ModelError, UnsafeModelError
from tuneloop.export.gguf import convert, inspect, pre_tokenizer_of, verify
from tuneloop.infer.engines.gguf_model import GgufModel
from tuneloop.progress import SILENT


def in_turn(*parts: dict[str, object]) -> dict[str, object]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def test_f16_keeps_matrices_in_half_and_norms_in_full_precision() -> None:
    report = inspect(gguf_file("llama"), "f16")
    assert report.fallbacks == 0 and set(report.tensors) == {"F16", "F32"}
    assert report.to_dict()["tensors"] == dict(report.tensors)


def test_q8_0_is_made_of_its_own_blocks() -> None:
    report = inspect(gguf_file("llama", "q8_0"), "q8_0")
    assert report.fallbacks == 0 and report.tensors["Q8_0"] >= 14
    assert gguf_file("llama", "q8_0").stat().st_size < gguf_file("llama").stat().st_size


def test_rows_that_do_not_divide_into_blocks_of_256_are_counted_and_said() -> None:
    said: list[str] = []

    class Listening:
        task = SILENT.task

        def say(self, message: str) -> None:
            said.append(message)

    path = gguf_file("llama").with_name("fallbacks.gguf")
    report = convert(merged_folder("llama"), path, "q4_k_m", progress=Listening())
    matrices = sum(report.tensors.values()) - report.tensors["F32"]
    assert report.fallbacks == matrices > 0  # no matrix of the tiny model is that wide
    assert said and f"{report.fallbacks} of {sum(report.tensors.values())} tensors are of another type" in said[0]


def test_the_chat_template_is_inside() -> None:
    model = GgufModel(gguf_file("llama"), room=256)
    template = (merged_folder("llama") / "chat_template.jinja").read_text(encoding="utf-8")
    assert model.chat_template == template and "<|im_start|>" in template
    model.close()


def test_a_file_that_is_another_models_is_refused(tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other")
    settings = json.loads((other / "tokenizer.json").read_bytes())
    merges = settings["model"]["merges"]
    settings["model"]["merges"] = merges[: len(merges) // 2]
    (other / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="its tokenizer makes token"):
        verify(other, gguf_file("llama"))
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(ModelError, match="its chat template is not that of the model"):
        verify(other, gguf_file("llama"))


def test_a_folder_that_would_run_code_is_refused_before_it_can(tmp_path: Path) -> None:
    shutil.copytree(merged_folder("llama"), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(UnsafeModelError):
        convert(tmp_path / "model", tmp_path / "model.gguf", "f16", progress=SILENT)


def test_an_architecture_that_llama_cpp_does_not_know_is_explained(tmp_path: Path) -> None:
    shutil.copytree(merged_folder("llama"), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"architectures": ["HomeMadeForCausalLM"]}))
    with pytest.raises(ModelError, match="HomeMadeForCausalLM is not supported") as caught:
        convert(tmp_path / "model", tmp_path / "model.gguf", "f16", progress=SILENT)
    assert "merged" in caught.value.hint and not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("pre_tokenizer", "name"),
    [
        ({"type": "ByteLevel", "use_regex": True}, "gpt-2"),
        (in_turn({"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}), "smollm"),
        (in_turn({"type": "Digits", "individual_digits": False}, {"type": "ByteLevel"}), ""),
        (in_turn({"type": "Split", "pattern": {"Regex": "x"}}, {"type": "ByteLevel"}), ""),
        ({"type": "Whitespace"}, ""),
        (None, ""),
    ],
)
def test_a_tokenizers_way_of_splitting_words_is_found_in_its_file(
    pre_tokenizer: object, name: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": pre_tokenizer}))
    assert pre_tokenizer_of(tmp_path) == name


def test_a_folder_with_another_kind_of_tokenizer_has_no_such_name(tmp_path: Path) -> None:
    assert pre_tokenizer_of(tmp_path) == ""
