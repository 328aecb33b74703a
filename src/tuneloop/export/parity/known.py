"""What is known beforehand of forms that answer otherwise: said beside the causes that the answers themselves show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuneloop.export.parity.result import ParityResult
from tuneloop.forms import ExportedForm

# Log-scores of labels, measured on the embedded model: see the beginning of `export.gguf`.
TWICE_ROUNDED_NATS, KERNEL_NATS = 5.6, 0.8


def with_known_reasons(result: ParityResult, form: ExportedForm | None) -> ParityResult:
    """Return the result with what is known of such a form, where it is refused for anything but its prompts."""
    if form is None or result.is_within or result.prompts.first is not None:
        return result
    return replace(result, causes=(*result.causes, *known_reasons(form)))


def known_reasons(form: ExportedForm) -> tuple[str, ...]:
    """Return why a form may well answer otherwise, most weighty first; empty where nothing is known."""
    if form.name != "gguf-q4_k_m":
        return ()
    found = []
    if before := form.made.get("base_rounded_to"):
        found.append(
            f"the base model's weights were rounded to four bits once already ({before}), and Q4_K_M rounds them "
            f"again: on the embedded model that moves label scores by up to {TWICE_ROUNDED_NATS} nats (llama.cpp's "
            f"arithmetic alone, with exact weights, by up to {KERNEL_NATS}); export gguf-q8_0 or gguf-f16 instead"
        )
    if fallbacks := form.made.get("fallbacks"):
        found.append(_fallbacks(int(fallbacks), form.made.get("tensors") or {}))
    return tuple(found)


def _fallbacks(count: int, tensors: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{number} {kind}" for kind, number in tensors.items())
    return (
        f"{count} of its {sum(map(int, tensors.values()))} tensors fell back to other types ({kinds}), since their "
        "rows do not divide into blocks of 256: these have more bits, so the file is larger, and not worse for that"
    )
