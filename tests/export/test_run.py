from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.export.exporting import logits_of, logits_of_folder, logits_with_adapter, trained_project, with_export
from tests.models.tiny import make_tiny_model
from tests.train.projects import Heard
from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.errors import GateRefused, ModelError
from tuneloop.export import adapter as writing
from tuneloop.export import make as making
from tuneloop.export import merge as merging
from tuneloop.export.identity import front_matter
from tuneloop.export.merge import Merged
from tuneloop.export.run import Exported
from tuneloop.forms import FORM, FormName, read_form
from tuneloop.loop import stages
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT
from tuneloop.runs import ADAPTER, task_of


@dataclass(frozen=True)
class Project:
    """A trained project; tests that share it export with settings of their own."""

    config: Config
    run: Artifact
    store: ArtifactStore

    def export(self, *forms: FormName, allow: tuple[FormName, ...] = (), **settings: Any) -> list[Exported]:
        config = with_export(self.config, **{"parity_examples": 6, **settings})
        return stages.export(config, self.store, SILENT, forms, allow_beyond_tolerance=allow)

    def kinds(self) -> list[str]:
        """Return the kinds of all artifacts, after making sure that nothing else is lying about."""
        assert not list(self.store.root.glob("*/.building-*"))
        return [artifact.kind for artifact in self.store]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(*trained_project(tmp_path_factory.mktemp("export") / "project"))


@pytest.fixture(scope="module")
def exported(project: Project) -> dict[str, Artifact]:
    """Form → artifact of the two forms that need no other program."""
    done = {one.form: one.artifact for one in project.export("adapter", "merged")}
    return {form: artifact for form, artifact in done.items() if artifact is not None}


def test_peft_loads_the_exported_adapter_by_itself(project: Project, exported: dict[str, Artifact]) -> None:
    folder = exported["adapter"].path / "adapter"
    base = Path(project.config.model.base_model)
    loaded: Any = AutoPeftModelForCausalLM.from_pretrained(str(folder))
    assert torch.equal(logits_of(loaded.eval()), logits_with_adapter(base, project.run.path / ADAPTER))
    stated = json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"]
    assert Path(stated).is_absolute() and Path(stated) == base.resolve()
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_transformers_loads_the_merged_model_and_hears_the_same(
    project: Project, exported: dict[str, Artifact]
) -> None:
    folder = exported["merged"].path / "model"
    wanted = logits_with_adapter(Path(project.config.model.base_model), project.run.path / ADAPTER)
    assert torch.allclose(logits_of_folder(folder), wanted, atol=1e-3)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Ada meows."}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 1


def test_a_form_says_what_it_is_and_how_it_was_proven(project: Project, exported: dict[str, Artifact]) -> None:
    form = read_form(exported["merged"])
    assert (form.name, form.engine, form.run_id) == ("merged", "transformers", project.run.id)
    assert form.base_model_fingerprint == project.run.manifest["inputs"]["base_model"]
    assert TaskPrompt.from_dict(form.task) == TaskPrompt.from_dict(task_of(project.run))
    assert form.parity["within_tolerance"] and form.parity["items"] == 6 and not form.is_allowed_beyond
    assert form.parity["prompts"]["same_tokens"] == 6
    assert form.policy is None  # the run was not calibrated
    content = json.loads((exported["merged"].path / FORM).read_bytes())
    assert content["base_model"]["name"] == "model"  # a folder's name, not where it is on this machine
    assert str(project.store.root) not in json.dumps(content)
    metadata, text = front_matter((exported["merged"].path / "README.md").read_text(encoding="utf-8"))
    assert metadata["library_name"] == "transformers" and "was not evaluated" in text


def test_what_is_exported_is_not_made_again(project: Project, exported: dict[str, Artifact]) -> None:
    again = project.export("adapter", "merged")
    assert [(one.artifact and one.artifact.id, one.is_skipped) for one in again] == [
        (artifact.id, True) for artifact in exported.values()
    ]
    assert "unproven" not in project.kinds()


def test_another_tolerance_is_proven_anew_without_making_the_weights_again(
    project: Project, exported: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(making, "write_adapter")
    tolerances = project.config.export.tolerances.model_dump()
    tolerances["exact"]["min_agreement"] = 1.0
    (one,) = project.export("adapter", tolerances=tolerances)
    assert one.artifact is not None and one.artifact.id != exported["adapter"].id
    weights = [
        artifact.path / "adapter" / "adapter_model.safetensors" for artifact in (one.artifact, exported["adapter"])
    ]
    assert weights[0].samefile(weights[1])  # linked, not copied
    noted = [read_form(artifact).made for artifact in (one.artifact, exported["adapter"])]
    assert noted[0] == noted[1] and "parity" not in noted[0]


def damage(folder: Path) -> None:
    """Scale an adapter's half up, as though its alpha had been forgotten."""
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: 50 * weight for name, weight in weights.items()}, folder / "adapter_model.safetensors")


@pytest.fixture
def damaged(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, exporting an adapter whose scale is wrong."""
    right = writing.write_adapter

    def write(source: Path, target: Path, *others: Any) -> None:
        right(source, target, *others)
        damage(target)

    monkeypatch.setattr(making, "write_adapter", write)
    return project


def test_a_form_that_answers_differently_is_refused_kept_and_exported_only_by_name(damaged: Project) -> None:
    tolerances = damaged.config.export.tolerances.model_dump()
    tolerances["exact"]["max_median_probability_difference"] = 1e-6
    settings: dict[str, Any] = {"parity_examples": 8, "tolerances": tolerances}
    for artifact in list(damaged.store):  # the same id was exported undamaged before, and would be linked
        if artifact.kind == "export":
            (artifact.path / "manifest.json").rename(artifact.path / "aside.json")
    try:
        (refused,) = damaged.export("adapter", **settings)
        assert isinstance(refused.refusal, GateRefused) and refused.artifact is None
        assert refused.refusal.exit_code == 4 and "adapter" in refused.refusal.message
        assert "--allow-beyond-tolerance adapter" in refused.refusal.hint
        assert damaged.kinds()[-1] == "unproven" and str(damaged.store.root) in refused.refusal.where
        (allowed,) = damaged.export("adapter", allow=("adapter",), **settings)
        assert allowed.artifact is not None and read_form(allowed.artifact).is_allowed_beyond
        assert allowed.artifact.summary["allowed_beyond_tolerance"]
        assert "unproven" not in damaged.kinds()
    finally:
        for aside in damaged.store.root.glob("export/*/aside.json"):
            aside.rename(aside.with_name("manifest.json"))


def test_a_merged_model_with_other_logits_is_refused_before_anything_is_built_on_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = merging.merge

    def wrong(model: Any, adapter: Path, target: Path, **settings: Any) -> Merged:
        done = right(model, adapter, target, **settings)
        weights = load_file(target / "model.safetensors")
        name = next(name for name in weights if "down_proj" in name)
        save_file({**weights, name: 1.2 * weights[name]}, target / "model.safetensors", {"format": "pt"})
        return done

    monkeypatch.setattr(making, "merge", wrong)
    merged, gguf = project.export("gguf-q8_0", dtype="float32", max_shard_size="3GB")
    assert merged.refusal is not None and "logits differ" in merged.refusal.message
    assert gguf.refusal is not None and "merged model, which was refused" in gguf.refusal.message
    assert "unproven" not in project.kinds()


@pytest.mark.parametrize("said", ["Writing"], ids=["while the merged weights are written"])
def test_ctrl_c_leaves_nothing_half_written(project: Project, said: str) -> None:
    before = project.kinds()
    config = with_export(project.config, parity_examples=6, max_shard_size="2GB")
    with pytest.raises(KeyboardInterrupt):
        stages.export(config, project.store, Heard(stop_at=said), ["merged"])
    assert project.kinds() == before


def test_another_base_model_than_the_runs_is_refused(project: Project, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=5)
    (other / "generation_config.json").write_text("{}")
    model = project.config.model.model_copy(update={"base_model": str(other)})
    with pytest.raises(ModelError, match="was trained on another base model"):
        stages.export(
            project.config.model_copy(update={"model": model}), project.store, SILENT, ["adapter"], run=project.run
        )
