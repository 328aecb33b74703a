"""Tiny models as GGUF files, made once in a test process by the code that makes them for users."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from transformers import AutoTokenizer

from tests.models.loaded import fresh_model, tiny_folder
from tests.models.tiny import Family
from tuneloop.export.gguf import GgufType, convert
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import LoadedModel
from tuneloop.progress import SILENT


@cache
def _keeper() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny-ggufs-")


@cache
def merged_folder(family: Family) -> Path:
    """Return a Hugging Face folder with the very weights of `tests.models.loaded.opened`."""
    folder = Path(_keeper().name) / family
    fresh_model(family).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder(family)).save_pretrained(folder)
    return folder


@cache
def gguf_file(family: Family, kind: GgufType = "f16") -> Path:
    """Return the tiny model as GGUF."""
    path = Path(_keeper().name) / f"{family}-{kind}.gguf"
    convert(merged_folder(family), path, kind, progress=SILENT)
    return path


@cache
def rounded(family: Family) -> LoadedModel:
    """Return the tiny model with weights as F16 keeps them, computed in float32."""
    model = fresh_model(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half().float())
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder(family))
    return LoadedModel(model, ChatFormat(tokenizer), torch.device("cpu"), torch.float32)
