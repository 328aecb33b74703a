"""The adapter alone, as PEFT, transformers and vLLM load it: a few MB on top of a base model that they have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tuneloop.errors import ModelError
from tuneloop.export.identity import BaseModel
from tuneloop.export.tokenizer import write_tokenizer
from tuneloop.models.chat import ChatFormat

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapter(source: Path, target: Path, base: BaseModel, chat: ChatFormat, base_folder: Path) -> None:
    """Write a run's adapter to the folder `target`, which is made, with tokenizer and chat template beside it.

    Its `base_model_name_or_path` is what others can load: a Hub id (with its revision) or an absolute folder, where
    the run may say `embedded` or a path relative to a project.

    Raises: ModelError: the run's adapter is damaged.
    """
    try:
        settings: dict[str, Any] = json.loads((source / SETTINGS).read_bytes())
        target.mkdir(parents=True)
        shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    except (FileNotFoundError, ValueError) as error:
        raise ModelError(
            f"the run's adapter cannot be read: {error}",
            where=str(source),
            hint="`tuneloop lineage ID --verify` finds altered files; train again if one is.",
        ) from error
    settings |= {"base_model_name_or_path": base.loadable, "revision": base.revision, "inference_mode": True}
    (target / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    write_tokenizer(chat, base_folder, target)
