"""The `vllm serve` command line, the same whether tuneloop starts it or an operator does.

Checked against vLLM 0.32. Knows nothing about processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuneloop.config.engines import VllmConfig

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
TOLD_TOKENS = 128  # most tokens that vLLM tells the log-probability of, for one position of one request


@dataclass(frozen=True)
class VllmModel:
    """What vLLM serves: a model folder under a name, and adapters on top of it by theirs.

    `chat_template` is a Jinja file; given always, since an adapter folder or a newer tokenizer may bring another.
    """

    folder: Path
    name: str
    chat_template: Path
    adapters: Mapping[str, Path] = field(default_factory=dict)
    lora_rank: int = 16


def vllm_command(
    model: VllmModel,
    *,
    dtype: str,
    max_tokens: int,
    on_cpu: bool,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: VllmConfig | None = None,
) -> list[str]:
    """Return the command line, beginning with `vllm serve`; the API key belongs into `VLLM_API_KEY`, where no list of
    processes and no log shows it.

    Args: dtype: by its name in torch; max_tokens: of prompt and answer together; on_cpu: whether there is no GPU.
    """
    settings = settings or VllmConfig()
    command = ["vllm", "serve", str(model.folder), "--served-model-name", model.name]
    command += ["--host", host, "--port", str(port), "--dtype", dtype, "--max-model-len", str(max_tokens)]
    command += ["--max-num-seqs", str(settings.max_sequences), "--tensor-parallel-size", str(settings.gpus)]
    command += ["--chat-template", str(model.chat_template), "--chat-template-content-format", "string"]
    # The model's generation_config.json would put penalties of its own on answers that were trained without them.
    command += ["--generation-config", "vllm", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    command += ["--max-logprobs", str(TOLD_TOKENS), "--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    # On CPUs a block is 128 tokens otherwise, and what is not a whole block of a prefix is computed again.
    command += ["--block-size", "32"] if on_cpu else ["--gpu-memory-utilization", f"{settings.gpu_memory:g}"]
    if settings.compile == "off" or (settings.compile == "auto" and on_cpu):
        command.append("--enforce-eager")
    if model.adapters:
        rank = next((rank for rank in LORA_RANKS if rank >= model.lora_rank), LORA_RANKS[-1])
        command += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(model.adapters))]
        modules = ({"name": name, "path": str(path)} for name, path in model.adapters.items())
        command += ["--lora-modules", *map(json.dumps, modules)]
    return [*command, *settings.arguments]


def vllm_environment(settings: VllmConfig | None = None) -> dict[str, str]:
    """Return the environment variables that belong to the command: the cache on a CPU, no reports, no downloads."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": str((settings or VllmConfig()).cpu_cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
