from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.export.exporting import trained_project, with_export
from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.errors import UsageError
from tuneloop.export.bundle import require_bundle_target, write_bundle
from tuneloop.forms import form_in
from tuneloop.loop import stages
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT

Exports = tuple[Config, ArtifactStore, list[Artifact]]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A calibrated project and its adapter and merged model, exported."""
    config, _, store = trained_project(tmp_path_factory.mktemp("bundle") / "project")
    stages.calibrate(config, store, SILENT)
    config = with_export(config, parity_examples=4, licence="apache-2.0", data_licences={"animals": "CC-BY-4.0"})
    done = stages.export(config, store, SILENT, ["adapter", "merged"])
    return config, store, [one.artifact for one in done if one.artifact is not None]


def bundled(exports: Exports, target: Path) -> list[Path]:
    config, store, artifacts = exports
    return write_bundle(target, artifacts, config.export, store, SILENT)


@pytest.fixture(scope="module")
def merged(exports: Exports, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The merged form, bundled; to be read only."""
    return bundled(exports, tmp_path_factory.mktemp("out") / "release")[1]


def test_the_checksums_are_what_sha256sum_accepts_and_cover_every_file(merged: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=merged, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    checked = {line.rpartition(":")[0] for line in done.stdout.splitlines()}
    files = {path.relative_to(merged).as_posix() for path in merged.rglob("*") if path.is_file()}
    assert checked == files - {"SHA256SUMS"}


def test_a_bundle_holds_every_paper_and_points_back_to_no_machine(exports: Exports, merged: Path) -> None:
    config = exports[0]
    form = form_in(merged)
    assert form.policy is not None and form.policy["labels"] == ["cat", "cow", "dog"]
    assert json.loads((merged / "labels.json").read_bytes()) == {"labels": ["cat", "cow", "dog"], "entity_types": []}
    assert (merged / "prompt" / "system.txt").read_text() == TaskPrompt.from_dict(form.task).system()
    example = (merged / "prompt" / "example.txt").read_text()
    assert config.task.instruction in example and example.endswith("<|im_start|>assistant\n")
    chain = json.loads((merged / "licences.json").read_bytes())["chain"]
    assert [(link["what"], link["licence"]) for link in chain] == [
        ("base model", None),
        ("training data", "CC-BY-4.0"),
        ("this export", "Apache-2.0"),
    ]
    kinds = {one["kind"] for one in json.loads((merged / "provenance.json").read_bytes())["artifacts"]}
    assert kinds >= {"export", "run", "dataset", "calibration"}
    home = str(config.store.root.parent)
    for path in (path for path in merged.parent.rglob("*") if path.is_file()):  # the adapter's as well
        assert home.encode() not in path.read_bytes(), path.name
    assert AutoModelForCausalLM.from_pretrained(merged / "model") is not None


def test_the_bill_of_materials_names_files_models_data_and_packages(merged: Path) -> None:
    bill: dict[str, Any] = json.loads((merged / "sbom.cdx.json").read_bytes())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    by_type: dict[str, list[dict[str, Any]]] = {}
    for component in bill["components"]:
        by_type.setdefault(component["type"], []).append(component)
    hashes = {one["name"]: one["hashes"][0]["content"] for one in by_type["file"]}
    lines = (merged / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert hashes == {name: digest for name, digest in sums.items() if name != "sbom.cdx.json"}
    packages = {one["name"]: one["purl"] for one in by_type["library"]}
    assert packages["safetensors"].startswith("pkg:pypi/safetensors@") and {"torch", "peft"} <= packages.keys()
    assert [one["name"] for one in by_type["machine-learning-model"]] == ["model"]
    assert by_type["data"][0]["licenses"] == [{"expression": "CC-BY-4.0"}]
    refs = [one["bom-ref"] for one in bill["components"]]
    assert len(refs) == len(set(refs))
    assert set(bill["dependencies"][0]["dependsOn"]) <= set(refs)


def test_an_archive_holds_the_same_and_has_the_same_bytes_whoever_packs_it(
    exports: Exports, merged: Path, tmp_path: Path
) -> None:
    (one,) = bundled(exports, tmp_path / "one.tar.gz")
    (two,) = bundled(exports, tmp_path / "two.tar.gz")
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tar.gz", "two.tar.gz"]
    with tarfile.open(one) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = tmp_path / "unpacked" / merged.name
    assert (unpacked / "SHA256SUMS").read_bytes() == (merged / "SHA256SUMS").read_bytes()
    assert form_in(unpacked).name == "merged"


def test_a_bundle_never_replaces_anything(exports: Exports, tmp_path: Path) -> None:
    taken = tmp_path / "release.tar.gz"
    taken.write_text("precious")
    with pytest.raises(UsageError, match="something already"):
        bundled(exports, taken)
    assert taken.read_text() == "precious"
    with pytest.raises(UsageError, match="is a file"):
        require_bundle_target(taken / "below", ["any"])


def test_an_interrupted_bundle_leaves_nothing(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuneloop.export.bundle._write_lists", stop)
    with pytest.raises(KeyboardInterrupt):
        bundled(exports, tmp_path / "release.tar.gz")
    assert list(tmp_path.iterdir()) == []
