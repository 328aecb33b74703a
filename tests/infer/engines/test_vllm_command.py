from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config.engines import VllmConfig
from tuneloop.infer.engines.vllm_command import VllmModel, vllm_command, vllm_environment

MERGED = VllmModel(Path("/models/merged"), "tuneloop", Path("/models/chat_template.jinja"))
ADAPTED = VllmModel(
    Path("/models/base"), "base", Path("/t.jinja"), {"tuneloop": Path("/runs/a=b,c/adapter")}, lora_rank=24
)


def command(model: VllmModel = MERGED, *, on_cpu: bool = True, **settings: Any) -> list[str]:
    return vllm_command(
        model, dtype="float32", max_tokens=2048, on_cpu=on_cpu, port=8123, settings=VllmConfig(**settings)
    )


def value(arguments: list[str], flag: str) -> str:
    assert arguments.count(flag) == 1
    return arguments[arguments.index(flag) + 1]


def test_the_command_serves_the_folder_on_loopback_with_prefix_cache_and_our_template() -> None:
    arguments = command()
    assert arguments[:3] == ["vllm", "serve", "/models/merged"]
    assert value(arguments, "--host") == "127.0.0.1" and value(arguments, "--port") == "8123"
    assert value(arguments, "--served-model-name") == "tuneloop" and value(arguments, "--dtype") == "float32"
    assert value(arguments, "--max-model-len") == "2048" and "--enable-prefix-caching" in arguments
    assert value(arguments, "--chat-template") == "/models/chat_template.jinja"
    assert value(arguments, "--generation-config") == "vllm" and "--enable-lora" not in arguments


def test_no_key_stands_in_the_command_line() -> None:
    assert not any("key" in argument for argument in command())


def test_an_adapter_goes_on_top_of_its_base_whatever_characters_its_path_has() -> None:
    arguments = command(ADAPTED)
    assert "--enable-lora" in arguments and value(arguments, "--max-lora-rank") == "32"
    assert json.loads(value(arguments, "--lora-modules")) == {"name": "tuneloop", "path": "/runs/a=b,c/adapter"}


@pytest.mark.parametrize(
    ("on_cpu", "compile", "is_eager"),
    [(True, "auto", True), (False, "auto", False), (True, "on", False), (False, "off", True)],
)
def test_models_are_compiled_where_that_pays_or_is_asked_for(on_cpu: bool, compile: str, is_eager: bool) -> None:
    assert ("--enforce-eager" in command(on_cpu=on_cpu, compile=compile)) == is_eager


def test_the_gpu_memory_is_a_matter_of_gpus_and_the_cache_size_one_of_cpus() -> None:
    assert "--gpu-memory-utilization" not in command()
    assert value(command(on_cpu=False, gpu_memory=0.5), "--gpu-memory-utilization") == "0.5"
    assert vllm_environment(VllmConfig(cpu_cache_gib=7))["VLLM_CPU_KVCACHE_SPACE"] == "7"


def test_the_users_own_arguments_come_last_so_that_they_win() -> None:
    assert command(arguments=("--block-size", "32"))[-2:] == ["--block-size", "32"]
