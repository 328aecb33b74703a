from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.artifacts import ArtifactStore
from tuneloop.config.exporting import ExportConfig
from tuneloop.errors import ArtifactError
from tuneloop.forms import FORMS, FormName, engine_of, form_in, part_of, read_form

CONTENT: dict[str, Any] = {
    "form": "gguf-q8_0",
    "run": "0123456789abcdef",
    "base_model": {"name": "org/model", "fingerprint": "f" * 16},
    "parity": {"within_tolerance": True},
    "allowed_beyond_tolerance": False,
}


def write(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "form.json").write_text(json.dumps(CONTENT | changes))
    (folder / "task.json").write_text('{"kind": "classify"}')
    (folder / "model.gguf").write_bytes(b"GGUF")
    return folder


def test_a_forms_folder_is_read_back(tmp_path: Path) -> None:
    form = form_in(write(tmp_path / "form"))
    assert (form.name, form.engine, form.path) == ("gguf-q8_0", "llamacpp", tmp_path / "form" / "model.gguf")
    assert form.folder == tmp_path / "form" and form.task == {"kind": "classify"} and form.policy is None
    (form.folder / "policy.json").write_text('{"threshold": 0.5}')
    assert form.policy == {"threshold": 0.5}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"form": "gguf-q1"}, "no form that this version knows"),
        ({"form": "merged"}, "model is missing"),
        ({"form": None}, "cannot be read"),
        ({"base_model": "org/model"}, "cannot be read"),
    ],
)
def test_a_folder_that_is_no_form_is_refused(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    with pytest.raises(ArtifactError, match=found):
        form_in(write(tmp_path / "form", **changes))


def test_only_an_export_is_read_as_a_form(store: ArtifactStore) -> None:
    for kind in ("run", "export"):
        with store.build(kind, "0" * 16, parents={}, inputs={}) as build:
            write(build.path)
    exported, run = (store.find(kind, "0" * 16) for kind in ("export", "run"))
    assert exported is not None and read_form(exported).name == "gguf-q8_0"
    assert run is not None
    with pytest.raises(ArtifactError, match="kind 'run', not an exported form"):
        read_form(run)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_a_place_an_engine_and_a_tolerance(name: FormName) -> None:
    is_gguf = name.startswith("gguf")
    assert (engine_of(name) == "llamacpp") == (part_of(name) == "model.gguf") == is_gguf
    strict, loose = ExportConfig().tolerances.exact, ExportConfig().tolerances.of(name)
    assert (loose == strict) == (name in ("adapter", "merged", "gguf-f16"))
    assert loose.min_agreement <= strict.min_agreement
