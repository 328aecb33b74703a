"""Engines by name: a run, an exported form or a served model, opened and ready to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tuneloop.artifacts import Artifact
from tuneloop.config.schema import Config
from tuneloop.errors import ModelError, UsageError
from tuneloop.forms import ExportedForm
from tuneloop.infer.engines.protocol import Engine
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.runs import ADAPTER, task_of

EngineKind = Literal["transformers", "llamacpp", "vllm", "openai"]


def open_engine(
    config: Config,
    name: EngineKind,
    *,
    run: Artifact | None = None,
    form: ExportedForm | None = None,
    url: str | None = None,
    progress: Progress,
    beside: Engine | None = None,
) -> Engine:
    """Return an engine for a run's model, or for an exported form of it.

    Args: url: where a server offers the model, for the engines that can be another process; run or form tell the task
        then. beside: an engine that is open already; an adapter on the same base model shares it.
    Raises: ModelError: the model cannot be loaded, or not by this engine; UsageError: something needed is not given;
        NetworkError: it has to be fetched or reached and cannot be.
    """
    if run is None and form is None:
        raise UsageError("no model is named", where=f"engine {name}", hint="Name a run or an exported form.")
    if url is not None and name in ("transformers", "llamacpp"):
        raise _computed_here(name, url)
    if name == "transformers":
        return _open_transformers(config, run, form, progress, beside)
    if name == "llamacpp":
        return _open_llamacpp(config, run, form)
    if name == "vllm":
        return _open_vllm(config, run, form, url, progress)
    return _open_openai(config, task_of_model(run, form), url)


def require_calibrated_answers(config: Config, name: EngineKind, model: str, policy: ReviewPolicy) -> None:
    """Refuse an engine whose answers the calibration of a `model` (its id) would not fit, before anything is opened.

    Raises: UsageError: the hint names the engines and settings that answer as the calibrated model did.
    """
    over_labels, scoring = policy.labels is not None, config.model.scoring(is_tuned=True)
    if over_labels and policy.label_scoring != scoring:
        found = f"it is calibrated on {policy.label_scoring} scores of its labels"
        where = f"model.label_scoring: {scoring}"
        hint = f"Set model.label_scoring: {policy.label_scoring}; or run `tuneloop calibrate`, and export again."
    elif name == "vllm" and config.serve.vllm.scoring == "guided" and over_labels:
        found = "it is calibrated on the scores of all its labels, and a guided answer has none"
        where, hint = "serve.vllm.scoring: guided", "Set serve.vllm.scoring: exact."
    elif name == "openai":
        found = (
            "it is calibrated, and an OpenAI-compatible API tells neither the scores nor the answers that this needs"
        )
        where = "serve.engine: openai"
        hint = (
            "Serve it with transformers, with vllm (a vLLM server at serve.engine_url, too), or as a GGUF export, "
            "which llamacpp computes; openai is for models that are not calibrated."
        )
    else:
        return
    raise UsageError(f"{model} cannot be served like this: {found}", where=where, hint=hint)


def open_untuned_engine(config: Config, run: Artifact, progress: Progress) -> Engine:
    """Return the base model without the run's adapter, asked as the run is: it tells what an adapter changes.

    Raises: ModelError: it cannot be loaded; NetworkError: it has to be fetched and cannot be.
    """
    from tuneloop.infer.engines.transformers import Limits, TransformersEngine
    from tuneloop.models.adapters import SharedBase

    limits = Limits(label_scoring=config.model.scoring(is_tuned=True))
    return TransformersEngine(SharedBase.open(config.model, progress), None, task_of_model(run, None), limits)


def task_of_model(run: Artifact | None, form: ExportedForm | None) -> TaskPrompt:
    """Return the task of a form, or else of a run. Raises: UsageError: neither is given."""
    if form is not None:
        return TaskPrompt.from_dict(form.task)
    if run is not None:
        return TaskPrompt.from_dict(task_of(run))
    raise UsageError("no model is named", where="engine", hint="Name a run or an exported form.")


def _open_transformers(
    config: Config, run: Artifact | None, form: ExportedForm | None, progress: Progress, beside: Engine | None
) -> Engine:
    from tuneloop.infer.engines.transformers import Limits, TransformersEngine
    from tuneloop.models.adapters import SharedBase

    task = task_of_model(run, form)
    limits = Limits(
        config.model.max_tokens,
        config.evaluate.max_new_tokens,
        config.evaluate.tokens_per_row,
        config.review.uncalibrated_threshold,
        config.model.scoring(is_tuned=True),
    )
    if form is not None and form.engine != "transformers":
        raise _wrong_engine(form, "transformers")
    if form is not None and form.name != "adapter":
        model = config.model.model_copy(update={"base_model": str(form.path), "revision": None})
        return TransformersEngine(SharedBase.open(model, progress), None, task, limits)
    folder, id, expected = _adapter_of(run, form)
    base = beside.base if isinstance(beside, TransformersEngine) and beside.base.fingerprint == expected else None
    base = base or SharedBase.open(config.model, progress)
    if base.fingerprint != expected:
        raise ModelError(
            f"{id} was trained on another base model than {config.model.base_model!r}",
            where="model.base_model",
            hint="Give the base model that it was trained on, or train again with this one.",
        )
    adapter = _free_name(id, base.adapters)
    base.add(adapter, folder)
    return TransformersEngine(base, adapter, task, limits)


def _adapter_of(run: Artifact | None, form: ExportedForm | None) -> tuple[Path, str, str]:
    """Return the adapter's folder, a name for messages, and the fingerprint of its base model."""
    if form is not None:
        return form.path, form.run_id, form.base_model_fingerprint
    if run is not None:
        return run.path / ADAPTER, run.id, str(run.manifest["inputs"]["base_model"])
    raise UsageError("no model is named", where="engine transformers", hint="Name a run or an exported form.")


def _free_name(id: str, taken: tuple[str, ...]) -> str:
    """Return a name for an adapter; one model may be open twice during a switch."""
    return next(name for number in range(len(taken) + 1) if (name := f"{id}/{number}") not in taken)


def _computed_here(name: EngineKind, url: str) -> UsageError:
    hint = (
        "Use the engine openai, as URL/v1#MODEL (a llama.cpp server offers this API, too), or vllm for a vLLM server."
    )
    return UsageError(f"{name} computes in this process, and asks no address", where=url, hint=hint)


def _open_llamacpp(config: Config, run: Artifact | None, form: ExportedForm | None) -> Engine:
    from tuneloop.infer.engines.llamacpp import open_gguf

    if form is None:
        raise UsageError(
            "llama.cpp loads GGUF files, which a run has to be exported to",
            where="engine llamacpp",
            hint="Run `tuneloop export gguf-q8_0`, and open what it makes.",
        )
    if form.engine != "llamacpp":
        raise _wrong_engine(form, "llamacpp")
    return open_gguf(
        form.path,
        task_of_model(run, form),
        max_tokens=config.model.max_tokens,
        max_new_tokens=config.evaluate.max_new_tokens,
        threshold=config.review.uncalibrated_threshold,
        label_scoring=config.model.scoring(is_tuned=True),
    )


def _open_vllm(
    config: Config, run: Artifact | None, form: ExportedForm | None, url: str | None, progress: Progress
) -> Engine:
    from tuneloop.infer.engines.vllm import VllmEngine
    from tuneloop.infer.engines.vllm_opening import connect_vllm, open_chat, start_vllm, weights_of

    weights = weights_of(config, run, form, progress)
    chat = open_chat(weights.folder, config.model)
    url = url or config.serve.engine_url
    server = connect_vllm(config, url) if url else start_vllm(config, weights, chat, progress)
    try:
        return VllmEngine(
            server,
            task_of_model(run, form),
            chat,
            max_tokens=weights.longest(config.model.max_tokens),
            max_new_tokens=config.evaluate.max_new_tokens,
            threshold=config.review.uncalibrated_threshold,
            label_scoring=config.model.scoring(is_tuned=True),
            is_guided=config.serve.vllm.scoring == "guided",
        )
    except BaseException:
        server.close()
        raise


def _open_openai(config: Config, task: TaskPrompt, url: str | None) -> Engine:
    from tuneloop.infer.calls import Patience
    from tuneloop.infer.endpoints import Endpoint
    from tuneloop.infer.engines.openai import OpenAIEngine

    url, settings = url or config.serve.engine_url, config.serve.openai
    if url is None:
        hint = "Give one: serve.engine_url: http://127.0.0.1:8000/v1#my-model"
        raise UsageError("the engine openai needs an address", where="serve.engine_url", hint=hint)
    return OpenAIEngine(
        Endpoint.parse(url),
        task,
        max_tokens=settings.max_tokens,
        concurrency=settings.concurrency,
        threshold=config.review.uncalibrated_threshold,
        patience=Patience(attempt_s=settings.total_s, total_s=settings.total_s),
    )


def _wrong_engine(form: ExportedForm, name: EngineKind) -> ModelError:
    return ModelError(
        f"the form {form.name} is not one that {name} loads", where=str(form.path), hint=f"Use engine {form.engine}."
    )
