from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.config.engines import OpenAIConfig, VllmConfig
from tuneloop.config.schema import Config


@pytest.mark.parametrize(
    "settings",
    [{"concurrency": 0}, {"concurrency": 257}, {"gpu_memory": 1.1}, {"restarts": -1}, {"dtype": "int8"}, {"url": "x"}],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VllmConfig.model_validate(settings)


def test_both_engines_have_their_section_below_serve() -> None:
    config = Config.model_validate({"serve": {"vllm": {"scoring": "guided"}, "openai": {"total_s": 5}}})
    assert config.serve.vllm == VllmConfig(scoring="guided") and config.serve.openai == OpenAIConfig(total_s=5)
