"""Python environments of our own, for programs whose packages do not fit beside ours (vLLM, llm-compressor).

Made once per user in the cache, from pins that come with the package, and only when asked for by name. A user may
name an interpreter of their own instead. Knows nothing about what runs in them.
"""

from __future__ import annotations

from tuneloop.environments.making import create_environment
from tuneloop.environments.places import (
    Environment,
    Place,
    environment_places,
    find_environment,
    remove_environment,
)
from tuneloop.environments.recipes import LLM_COMPRESSOR, NAMES, VLLM, VLLM_CPU, Recipe, recipe_for

__all__ = [
    "LLM_COMPRESSOR",
    "NAMES",
    "VLLM",
    "VLLM_CPU",
    "Environment",
    "Place",
    "Recipe",
    "create_environment",
    "environment_places",
    "find_environment",
    "recipe_for",
    "remove_environment",
]
