"""The licence chain of an export: of the base model, of the training data, and of what came of both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from license_expression import ExpressionError, get_spdx_licensing

from tuneloop.config.exporting import ExportConfig
from tuneloop.export.identity import BaseModel

NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Link:
    """One step: what it is, its licence (SPDX where it is one, None where nobody states it), and who says so."""

    what: Literal["base model", "training data", "this export"]
    name: str
    licence: str | None
    stated_in: str


def licence_chain(base: BaseModel, settings: ExportConfig, name: str) -> list[Link]:
    """Return the chain for an export called `name`; it states what is known, and is no legal advice."""
    own = settings.licence or base.licence
    by = "export.licence" if settings.licence else "taken over from the base model" if own else NOT_STATED
    data = [
        Link("training data", title, spdx(licence), "export.data_licences")
        for title, licence in settings.data_licences.items()
    ]
    stated = "the base model's card" if base.licence else NOT_STATED
    return [
        Link("base model", base.title, spdx(base.licence), stated),
        *(data or [Link("training data", "own documents", None, NOT_STATED)]),
        Link("this export", name, spdx(own), by),
    ]


def spdx(licence: str | None) -> str | None:
    """Return a licence in SPDX's own spelling (`apache-2.0` becomes `Apache-2.0`), or as it is where it has none."""
    return licence if licence is None or not is_spdx(licence) else str(get_spdx_licensing().parse(licence))


def is_spdx(licence: str) -> bool:
    """Whether `licence` is an SPDX expression of known licences."""
    try:  # not `validate`, which itself fails on what has a character that no licence's key has
        return get_spdx_licensing().parse(licence, validate=True) is not None
    except ExpressionError:
        return False


def to_dicts(chain: list[Link]) -> list[dict[str, Any]]:
    """Return the chain for JSON."""
    return [asdict(link) for link in chain]
