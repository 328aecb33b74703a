"""Quantises one model with llm-compressor; runs as a script in that package's own environment, without tuneloop.

It is given one JSON file: `model` (a Hugging Face folder), `output`, `form`, `group_size`, `rows` (token ids of
calibration documents), `seed`, `trust_remote_code`. It tells on stdout, one JSON object a line, how far it is (`step`:
`at` which of `total` parts of the model), and in the end `done` with what was made, or `error`. What libraries print
goes to stderr.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GROUP_SIZES = (128, 64, 32)
OUTPUT_LAYER = ["lm_head"]  # small models suffer most here, and every engine expects it unquantised
PART = re.compile(r"\((\d+)/(\d+)\): \w")  # "(3/31): Calibrating"


def main(request_path: str) -> int:
    """Carry out the request in a file; returns the exit code."""
    tell, errors = Teller(), sys.stderr
    sys.stderr = Listener(errors, tell)
    try:
        request = json.loads(Path(request_path).read_bytes())
        tell("done", **quantise(request, tell))
    except Exception as error:
        traceback.print_exc(file=errors)  # the source that it quotes is no progress bar
        first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        tell("error", kind=type(error).__name__, message=first_line)
        return 1
    return 0


class Teller:
    """Writes events to the stdout that the process began with; everything else that is printed goes to stderr."""

    def __init__(self) -> None:
        self._stream = sys.stdout
        sys.stdout = sys.stderr

    def __call__(self, event: str, **facts: Any) -> None:
        """Tell one event."""
        self._stream.write(json.dumps({"event": event, **facts}) + "\n")
        self._stream.flush()


class Listener:
    """Passes on what is written to a stream, and tells when llm-compressor's bars reach another part of the model."""

    def __init__(self, stream: Any, tell: Teller) -> None:
        self._stream, self._tell, self._last = stream, tell, 0

    def write(self, text: str) -> int:
        """Write, and listen."""
        if (match := PART.search(text)) and int(match[1]) != self._last:
            self._last = int(match[1])
            self._tell("step", at=self._last, total=int(match[2]))
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quantise(request: dict[str, Any], tell: Teller) -> dict[str, Any]:
    """Load, quantise and save the model; returns what was made."""
    import llmcompressor
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(request["seed"])
    has_accelerator = torch.accelerator.is_available()
    # Half precision is many times slower than float32 on most CPUs; the calibration needs hundreds of passes.
    dtype = "auto" if has_accelerator else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype=dtype, local_files_only=True, trust_remote_code=request["trust_remote_code"]
    )
    layers = quantised_layers(model)
    group_size = fitting_group_size([layer.in_features for layer in layers.values()], request["group_size"])
    rows = request["rows"]
    if not has_accelerator:
        _without_pinned_memory()
    llmcompressor.oneshot(
        model=model,
        dataset=_loader(rows) if rows else None,
        recipe=recipe(request["form"], group_size),
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows), default=1),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(request["output"], save_compressed=True)
    return {
        "group_size": group_size if request["form"].endswith("4bit") else None,
        "layers": len(layers),
        "calibration_tokens": sum(map(len, rows)),
        "device": str(torch.accelerator.current_accelerator()) if has_accelerator else "cpu",
        "versions": _versions(),
    }


def quantised_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers that become small integers, by name."""
    import torch

    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return {name: layer for name, layer in linear.items() if name not in OUTPUT_LAYER}


def fitting_group_size(widths: Sequence[int], wanted: int) -> int:
    """Return the largest group size up to `wanted` that divides every layer's width (128 where `wanted` is more).

    Raises: ValueError: not even 32 does.
    """
    for size in GROUP_SIZES:
        if size <= wanted and all(width % size == 0 for width in widths):
            return size
    odd = next(width for width in widths if width % GROUP_SIZES[-1])
    raise ValueError(f"a layer is {odd} wide, which no group of {', '.join(map(str, GROUP_SIZES))} divides")


def recipe(form: str, group_size: int) -> list[Any]:
    """Return llm-compressor's modifiers for a form."""
    if form == "gptq-4bit":
        from llmcompressor.modifiers.gptq import GPTQModifier

        return [GPTQModifier(config_groups=_weights(4, "group", group_size), ignore=OUTPUT_LAYER)]
    from llmcompressor.modifiers.quantization import QuantizationModifier

    if form == "int8":
        return [QuantizationModifier(config_groups=_weights(8, "channel", None), ignore=OUTPUT_LAYER)]
    if form == "awq-4bit":
        from llmcompressor.modifiers.transform.awq import AWQModifier

        groups = _weights(4, "group", group_size, symmetric=False)
        return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=OUTPUT_LAYER)]
    raise ValueError(f"{form!r} is not a form that llm-compressor makes")


def _weights(bits: int, strategy: str, group_size: int | None, *, symmetric: bool = True) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy, "group_size": group_size}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def _loader(rows: Sequence[Sequence[int]]) -> Any:
    """Return a DataLoader of one document a batch, so that none is padded or cut."""
    import torch
    from torch.utils.data import DataLoader

    items = [{"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row)).long()} for row in rows]
    return DataLoader(items, batch_size=None)  # type: ignore[arg-type]


def _without_pinned_memory() -> None:
    """Let AWQ run without an accelerator: llm-compressor 0.14 pins its cache for copies to a GPU, be there one or not.

    Without a GPU torch refuses to pin memory, and nothing is copied.
    """
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda self, *arguments, **options: None


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("llmcompressor", "compressed-tensors", "torch", "transformers")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
