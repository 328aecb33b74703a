"""Which base model was tuned: a name that others can load, its fingerprint, and the licence that it states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tuneloop.config.schema import ModelConfig
from tuneloop.models.embedded import HUB_NAME, LICENCE
from tuneloop.models.load import EMBEDDED, fingerprint


@dataclass(frozen=True)
class BaseModel:
    """A base model as an export names it.

    `loadable` is a Hub id or an absolute folder; `title` the same for people elsewhere, without the folders around it.
    `licence` is as the model's card states it, None where it states none.
    """

    loadable: str
    title: str
    revision: str | None
    fingerprint: str
    licence: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return what form.json says of it: nothing that only means something on this machine."""
        return {
            "name": self.title,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "licence": self.licence,
        }


def identify(config: ModelConfig, folder: Path) -> BaseModel:
    """Return who the configured base model is, whose files are in `folder`."""
    mark = fingerprint(folder)
    if config.base_model == EMBEDDED:
        return BaseModel(HUB_NAME, HUB_NAME, None, mark, LICENCE)
    is_local = Path(config.base_model).is_dir()
    loadable = str(Path(config.base_model).resolve()) if is_local else config.base_model
    title = Path(loadable).name if is_local else config.base_model
    return BaseModel(loadable, title, None if is_local else config.revision, mark, _stated_licence(folder))


def front_matter(card: str) -> tuple[dict[str, Any], str]:
    """Return the YAML metadata of a model card and the text after it; no metadata is an empty dictionary."""
    if not card.startswith("---\n") or (end := card.find("\n---", 4)) < 0:
        return {}, card
    try:
        metadata = yaml.safe_load(card[4:end])
    except yaml.YAMLError:  # someone else's card: what cannot be read says nothing
        return {}, card
    body = card[end + 4 :].partition("\n")[2]
    return (metadata, body.lstrip("\n")) if isinstance(metadata, dict) else ({}, card)


def _stated_licence(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    stated = front_matter(card.read_text(encoding="utf-8", errors="replace"))[0].get("license")
    return stated if isinstance(stated, str) and stated else None
