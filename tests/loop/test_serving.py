from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.targets.forms import PROMPT, make_form
from tuneloop.artifacts import ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import UsageError
from tuneloop.forms import POLICY, FormName
from tuneloop.infer.calibrate import Calibrator
from tuneloop.infer.engines.openai import OpenAIEngine
from tuneloop.infer.engines.opening import require_calibrated_answers
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.loop.serving import ModelOpener
from tuneloop.progress import SILENT

OVER_LABELS = ReviewPolicy(Calibrator(), threshold=0.5, labels=PROMPT.labels)
URL = "http://127.0.0.1:9/v1#claims"


def opener(
    root: Path, form: FormName = "merged", *, policy: ReviewPolicy | None = None, **serve: Any
) -> tuple[ModelOpener, ServedModelConfig]:
    """Return what opens an export, calibrated by `policy`."""
    exported = make_form(root, form)
    if policy is not None:
        (exported.folder / POLICY).write_text(json.dumps(policy.to_dict()))
    store = ArtifactStore(root / "artifacts")
    (artifact,) = store
    config = Config.model_validate({"serve": serve})
    return ModelOpener(config, store, SILENT), ServedModelConfig(name="claims", export=artifact.id)


@pytest.mark.parametrize(
    ("serve", "setting", "advice"),
    [
        ({"engine": "openai", "engine_url": URL}, "serve.engine: openai", "as a GGUF export"),
        ({"engine": "vllm", "vllm": {"scoring": "guided"}}, "serve.vllm.scoring: guided", "serve.vllm.scoring: exact"),
    ],
    ids=["an API", "guided vLLM"],
)
def test_an_engine_whose_answers_do_not_fit_the_calibration_is_refused_before_anything_is_opened(
    tmp_path: Path, serve: dict[str, Any], setting: str, advice: str
) -> None:
    open_model, source = opener(tmp_path, policy=OVER_LABELS, **serve)
    with pytest.raises(UsageError, match="cannot be served like this: it is calibrated") as refused:
        open_model(source)
    assert refused.value.where == setting and advice in refused.value.hint


def test_a_calibration_without_label_scores_does_not_ask_for_any() -> None:
    guided = Config.model_validate({"serve": {"vllm": {"scoring": "guided"}}, "model": {"label_scoring": "sequence"}})
    without = ReviewPolicy(Calibrator(), threshold=0.5)
    require_calibrated_answers(guided, "vllm", "a run", without)
    require_calibrated_answers(Config(), "vllm", "a run", OVER_LABELS)
    with pytest.raises(UsageError):
        require_calibrated_answers(guided, "openai", "a run", without)


def test_scores_of_another_kind_than_was_calibrated_on_are_refused() -> None:
    config = Config.model_validate({"model": {"label_scoring": "sequence"}})
    with pytest.raises(UsageError, match="calibrated on constrained scores") as refused:
        require_calibrated_answers(config, "transformers", "a run", OVER_LABELS)
    assert refused.value.where == "model.label_scoring: sequence"
    assert "model.label_scoring: constrained" in refused.value.hint


@pytest.mark.parametrize("form", ["merged", "gguf-q8_0"])
def test_an_export_that_is_not_calibrated_can_be_asked_at_an_api_whatever_its_form(
    tmp_path: Path, form: FormName
) -> None:
    open_model, source = opener(tmp_path, form, engine="openai", engine_url=URL)
    opened = open_model(source)
    opened.engine.close()
    assert isinstance(opened.engine, OpenAIEngine) and opened.engine.task == PROMPT and opened.policy is None


def test_an_address_is_not_passed_over_where_the_engine_asks_none(tmp_path: Path) -> None:
    open_model, source = opener(tmp_path, engine_url=URL)
    with pytest.raises(UsageError, match="transformers computes in this process, and asks no address") as refused:
        open_model(source)
    assert refused.value.where == URL and "engine openai" in refused.value.hint
