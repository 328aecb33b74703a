"""Tiny models of several families, opened and ready for use, and small batches of token ids."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.tiny import Family, make_tiny_model
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import LoadedModel
from tuneloop.train.batches import TokenizedExample


@cache
def _keeper() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny-models-")


@cache
def tiny_folder(family: Family) -> Path:
    """Return the folder of a tiny model, made once in a test process."""
    return make_tiny_model(Path(_keeper().name) / family, family)


def fresh_model(family: Family) -> Any:
    """Return a new copy of the tiny model, which a test may change."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder(family))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norm weights and biases, which are all ones or zeros in a new model
                shift = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * shift)
            elif "embed" not in name:
                parameter.mul_(0.5)
    model.eval()
    return model


def fresh(family: Family) -> LoadedModel:
    """Return a new copy of the tiny model with its chat format."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder(family))
    return LoadedModel(fresh_model(family), ChatFormat(tokenizer), torch.device("cpu"), torch.float32)


@cache
def opened(family: Family) -> LoadedModel:
    """Return the tiny model that all tests share; they may not change its weights."""
    return fresh(family)


def random_ids(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Return sequences of ordinary tokens."""
    draw = random.Random(seed)
    return [[draw.randrange(3, 300) for _ in range(length)] for length in lengths]


def random_examples(
    shared: int, rests: Sequence[int], answers: Sequence[int], seed: int = 0
) -> tuple[tuple[int, ...], list[TokenizedExample]]:
    """Return a common prefix of `shared` tokens and examples that go on with `rests` and answer with `answers`."""
    prefix, *parts = random_ids([shared, *rests, *answers], seed)
    documents, replies = parts[: len(rests)], parts[len(rests) :]
    return tuple(prefix), [
        TokenizedExample(str(number), (*prefix, *document), tuple(reply))
        for number, (document, reply) in enumerate(zip(documents, replies, strict=True))
    ]
