"""Model folders whose weights are stored as small integers (compressed-tensors), opened as ordinary weights.

Left to itself transformers unpacks them in the first forward pass, when layers have been replaced already and look for
weights that are not there. Unpacked while loading they are plain matrices, with the values that the integers stand for:
as exact as the form is, as fast as an unquantised model, and as large in memory.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuneloop.errors import ModelError

METHOD = "compressed-tensors"


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """Return the `quantization_config` of a model folder, or None where its weights are ordinary ones."""
    found = json.loads((folder / "config.json").read_bytes()).get("quantization_config")
    return found if isinstance(found, dict) else None


def loading_options(folder: Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """Return what `from_pretrained` must be told besides, to unpack a quantised folder; nothing for an ordinary one.

    Raises: ModelError: the package that reads the format is not installed.
    """
    settings = quantization_of(folder)
    if settings is None or settings.get("quant_method") != METHOD:
        return {}
    if find_spec("compressed_tensors") is None:
        raise ModelError(
            "these weights are in the compressed-tensors format, and this Python has nothing that reads it",
            where=str(folder),
            hint="Install it: pip install 'tuneloop[quantized]'",
        )
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    config.quantization_config = {**settings, "dequantize": True}
    return {"config": config}
