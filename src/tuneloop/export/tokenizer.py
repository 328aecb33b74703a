"""The tokenizer beside exported weights: the base model's own files, byte for byte, and the chat template in use.

Readers disagree about where a chat template stands: transformers prefers chat_template.jinja, llama.cpp's converter
the key in tokenizer_config.json. What is written here says the same in both.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tuneloop.models.chat import ChatFormat

TEMPLATE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"
FILES = (
    "tokenizer.json",
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    TEMPLATE,
)
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*")


def write_tokenizer(chat: ChatFormat, base: Path, target: Path) -> None:
    """Copy the tokenizer files of the folder `base` into `target`, with the chat template that `chat` writes with.

    Licence texts, which have to travel with the model, come along.
    """
    wanted = [base / name for name in FILES] + [path for pattern in LICENCES for path in base.glob(pattern)]
    for path in wanted:
        if path.is_file():
            shutil.copyfile(path, target / path.name)
    template = chat.tokenizer.chat_template
    if isinstance(template, str):
        (target / TEMPLATE).write_bytes(template.encode("utf-8"))
        _state_in_settings(target / SETTINGS, template)


def _state_in_settings(path: Path, template: str) -> None:
    settings: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    if settings.get("chat_template") != template:
        text = json.dumps(settings | {"chat_template": template}, indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
