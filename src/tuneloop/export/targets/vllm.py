"""The `vllm serve` command line for a form, as a script: on loopback, since vLLM itself is never exposed."""

from __future__ import annotations

import json
from pathlib import Path

from tuneloop.config.engines import VllmConfig
from tuneloop.errors import UsageError
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm
from tuneloop.infer.engines.vllm_command import VllmModel, vllm_command, vllm_environment

SCRIPT = "vllm-serve.sh"
TEMPLATE = "chat_template.jinja"


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return a script with the same command line that tuneloop itself starts vLLM with.

    Raises: UsageError: vLLM does not load this form.
    """
    options = VllmConfig(gpus=max(settings.gpus, 1))
    command = vllm_command(
        _model(form, settings),
        dtype="auto",
        max_tokens=settings.max_tokens,
        on_cpu=settings.gpus == 0,
        port=settings.port,
        settings=options,
    )
    environment = vllm_environment(options)
    script = render(f"{SCRIPT}.j2", title=settings.name, environment=sorted(environment.items()), words=command)
    return {SCRIPT: script}


def _model(form: ExportedForm, settings: TargetSettings) -> VllmModel:
    path = form.path.absolute()
    template = path / TEMPLATE
    if form.engine != "transformers":
        raise _refused(
            form, "vLLM serves Hugging Face folders, this is a GGUF file", "Export merged, int8 or gptq-4bit."
        )
    if not template.is_file():
        raise _refused(form, f"its folder has no {TEMPLATE}, so vLLM might take another", "Export it again.")
    if form.name != "adapter":
        return VllmModel(path, settings.served_name, template)
    base = Path(form.base_model)
    if "/" not in form.base_model and not base.is_dir():
        hint = "Export merged, which brings the base model's weights along."
        raise _refused(form, f"its base model {form.base_model!r} is no folder and not on the Hub", hint)
    rank = int(json.loads((path / "adapter_config.json").read_bytes())["r"])
    return VllmModel(base, f"{settings.served_name}-base", template, {settings.served_name: path}, rank)


def _refused(form: ExportedForm, found: str, hint: str) -> UsageError:
    return UsageError(found, where=f"{form.name} in {form.folder}", hint=hint)
