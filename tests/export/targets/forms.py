"""Exported forms small enough for tests: real folders of the right layout, with a GGUF that has a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tests.models.tiny import CHAT_TEMPLATE
from tuneloop.artifacts import ArtifactStore
from tuneloop.forms import FORM, KIND, TASK, ExportedForm, FormName, engine_of, part_of, read_form
from tuneloop.models.prompt import TaskPrompt

PROMPT = TaskPrompt("classify", 'Classify the "document":\n  {{ .System }} and $HOME', ("Bill", "Offer"), ())
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b"]
SPECIAL, ORDINARY = 3, 1


def make_form(
    root: Path, name: FormName = "merged", template: str = CHAT_TEMPLATE, task: TaskPrompt = PROMPT
) -> ExportedForm:
    """Build an export artifact below `root` and return its form."""
    store = ArtifactStore(root / "artifacts")
    inputs = {"form": name, "template": template, "task": task.to_dict()}
    id = {"merged": "a1", "adapter": "b2"}.get(name, "c3") * 8
    with store.build(KIND, id, parents={}, inputs=inputs) as build:
        _write(build.path, name, template)
        (build.path / TASK).write_text(json.dumps(task.to_dict()))
        base = {"name": "org/base", "fingerprint": "f" * 16, "revision": None, "licence": None}
        content = {"form": name, "run": "0" * 16, "base_model": base, "parity": {}, "allowed_beyond_tolerance": False}
        (build.path / FORM).write_text(json.dumps(content))
        (build.path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card\n")
    form = read_form(store.get(id))
    assert form.engine == engine_of(name)
    return form


def _write(folder: Path, name: FormName, template: str) -> None:
    path = folder / part_of(name)
    if path.suffix == ".gguf":
        write_gguf(path, template)
        return
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "chat_template.jinja").write_text(template)
    (path / "model.safetensors").write_bytes(b"\0" * 64)
    if name == "adapter":
        (path / "adapter_config.json").write_text(json.dumps({"r": 12}))
        (path / "README.md").write_text("what PEFT writes")


def write_gguf(path: Path, template: str | None) -> None:
    """Write a GGUF file with a tokenizer and a chat template, and no weights."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([SPECIAL] * 3 + [ORDINARY] * 2)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
