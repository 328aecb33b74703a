"""vLLM opened for a run or an exported form: started in its own environment, or found at an address."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tuneloop.artifacts import Artifact
from tuneloop.cache import cache_folder
from tuneloop.config.schema import Config, ModelConfig
from tuneloop.environments import VLLM, VLLM_CPU, find_environment
from tuneloop.errors import ModelError, TuneloopError, UsageError
from tuneloop.forms import ExportedForm
from tuneloop.hardware import choose_dtype, measure
from tuneloop.infer.endpoints import ApiKey, Endpoint
from tuneloop.infer.engines.address import ServerAddress
from tuneloop.infer.engines.server_process import ServerCommand, ServerPatience, ServerProcess
from tuneloop.infer.engines.vllm_command import VllmModel, vllm_command, vllm_environment
from tuneloop.infer.engines.vllm_server import VllmServer
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import base_model_folder, check_folder, fingerprint
from tuneloop.progress import Progress
from tuneloop.runs import ADAPTER

SERVED, BASE = "tuneloop", "base"


@dataclass(frozen=True)
class VllmWeights:
    """What vLLM loads: a folder with weights and tokenizer, and an adapter on top of it, if any."""

    folder: Path
    adapter: Path | None = None

    def longest(self, max_tokens: int) -> int:
        """Return `max_tokens`, or what the model can read where that is less; vLLM refuses more."""
        content = json.loads((self.folder / "config.json").read_bytes())
        return min(max_tokens, int(content.get("max_position_embeddings") or max_tokens))

    def lora_rank(self) -> int:
        """Return the adapter's rank, 0 without one."""
        if self.adapter is None:
            return 0
        return int(json.loads((self.adapter / "adapter_config.json").read_bytes())["r"])


def weights_of(config: Config, run: Artifact | None, form: ExportedForm | None, progress: Progress) -> VllmWeights:
    """Return what vLLM loads for a form, or else for a run: its base model with its adapter.

    Raises: ModelError: the form is for another engine, or the configured base model is another one.
    """
    if form is not None and form.engine != "transformers":
        hint = f"Use engine {form.engine}, or export another form."
        raise ModelError(f"the form {form.name} is not one that vllm loads", where=str(form.path), hint=hint)
    if form is not None and form.name != "adapter":
        check_folder(form.path)
        return VllmWeights(form.path)
    if form is not None:
        adapter, expected = form.path, form.base_model_fingerprint
    elif run is not None:
        adapter, expected = run.path / ADAPTER, str(run.manifest["inputs"]["base_model"])
    else:
        raise UsageError("no model is named", where="engine vllm", hint="Name a run or an exported form.")
    folder = base_model_folder(config.model, progress)
    if fingerprint(folder) != expected:
        raise ModelError(
            f"{adapter} was trained on another base model than {config.model.base_model!r}",
            where="model.base_model",
            hint="Give the base model that it was trained on, or train again with this one.",
        )
    return VllmWeights(folder, adapter)


def open_chat(folder: Path, config: ModelConfig) -> ChatFormat:
    """Return the chat format of a model folder, without its weights. Raises: ModelError: it has no usable tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=config.trust_remote_code, local_files_only=True
        )
    except Exception as error:  # tokenizers raises types of its own for damaged files
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        hint = "Fetch the model again; a tokenizer file is missing or damaged."
        raise ModelError(f"the tokenizer cannot be loaded: {first_line}", where=str(folder), hint=hint) from error
    return ChatFormat(tokenizer)


def start_vllm(config: Config, weights: VllmWeights, chat: ChatFormat, progress: Progress) -> VllmServer:
    """Start vLLM on loopback for one model, and return it when it is ready.

    Raises: UsageError: its environment is not here; ModelError: it does not start (its last lines say why).
    """
    settings, hardware = config.serve.vllm, measure()
    on_cpu = hardware.best_device.kind != "cuda"
    name = VLLM_CPU if on_cpu else VLLM
    environment = find_environment(name, config.environments.python_of(name))
    folder = _folder()
    template = folder / "chat_template.jinja"
    template.write_text(str(chat.tokenizer.get_chat_template()), encoding="utf-8")
    adapters = {SERVED: weights.adapter.absolute()} if weights.adapter else {}
    model = VllmModel(
        weights.folder.absolute(), BASE if adapters else SERVED, template, adapters, weights.lora_rank() or 8
    )
    dtype = choose_dtype(hardware, config.model.dtype if settings.dtype == "auto" else settings.dtype)

    def command(port: int, key: str) -> ServerCommand:
        arguments = vllm_command(
            model,
            dtype=dtype,
            max_tokens=weights.longest(config.model.max_tokens),
            on_cpu=on_cpu,
            port=port,
            settings=settings,
        )
        python = (str(environment.python), "-m", "vllm.entrypoints.cli.main")
        variables = {**environment.env(), **vllm_environment(settings), "VLLM_API_KEY": key}
        return ServerCommand((*python, *arguments[1:]), variables)

    patience = ServerPatience(start_s=settings.start_s, restarts=settings.restarts)
    process = ServerProcess("vLLM", command, log=folder / "vllm.log", patience=patience)
    process.start(progress)
    return VllmServer(_OwnVllm(process, folder), SERVED, concurrency=settings.concurrency)


def connect_vllm(config: Config, url: str) -> VllmServer:
    """Return the vLLM server at `url`: http://host:port, with or without /v1, and #MODEL where it serves several.

    Raises: UsageError: this is no such address, or it serves several models; NetworkError: it does not answer.
    """
    address, _, model = url.partition("#")
    base_url = address.rstrip("/").removesuffix("/v1")
    endpoint = Endpoint.parse(f"{base_url}#{model or SERVED}")
    server = ServerAddress(endpoint.base_url, endpoint.key(), health="/health")
    connected = VllmServer(server, model, concurrency=config.serve.vllm.concurrency)
    try:
        served = connected.models()
        if not model and len(served) != 1:
            hint = f"Name one of {', '.join(served)} after a #: {address}#{next(iter(served), 'MODEL')}"
            raise UsageError(f"it serves {len(served)} models", where=address, hint=hint)
    except BaseException:
        connected.close()
        raise
    connected.model = model or served[0]
    return connected


class _OwnVllm:
    """A vLLM that we started, with the folder of its log and template; that stays where it ended by itself."""

    def __init__(self, process: ServerProcess, folder: Path) -> None:
        self.process, self.folder = process, folder

    @property
    def base_url(self) -> str:
        return self.process.base_url

    @property
    def key(self) -> ApiKey:
        return self.process.key

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def failure(self) -> TuneloopError:
        return self.process.failure()

    def close(self) -> None:
        was_alive = self.process.is_alive()
        self.process.close()
        if was_alive:
            shutil.rmtree(self.folder, ignore_errors=True)


def _folder() -> Path:
    """Make a folder for one server's files, readable by us alone."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(2)}"
    folder = cache_folder() / "servers" / name
    folder.mkdir(parents=True, mode=0o700)
    return folder
