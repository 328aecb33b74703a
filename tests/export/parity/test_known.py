from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneloop.export.parity.asked import Speed
from tuneloop.export.parity.known import known_reasons, with_known_reasons
from tuneloop.export.parity.prompts import Departure, PromptParity
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.forms import ExportedForm, FormName

MADE = {"base_rounded_to": "Q4_1", "fallbacks": 180, "tensors": {"F32": 61, "Q4_K": 31, "Q5_0": 180}}


def form(made: dict[str, Any], name: FormName = "gguf-q4_k_m") -> ExportedForm:
    return ExportedForm(name, Path("model.gguf"), "llamacpp", "r" * 16, "f" * 16, {}, made=made)


def result(**changes: Any) -> ParityResult:
    speed = Speed(1.0, ())
    whole = ParityResult(
        "the evaluated model", "gguf-q4_k_m", 10, Tolerance(), PromptParity(10, 10, 10, None),
        None, None, None, None, None, speed, speed, ("another label on 4 of 10 documents",), ("rounding",),
    )  # fmt: skip
    return replace(whole, **changes)


def test_a_refused_q4_k_m_of_a_base_that_was_rounded_before_names_that_with_its_figure_and_what_to_take() -> None:
    refusal = with_known_reasons(result(), form(MADE)).refusal()
    assert refusal.hint.startswith("Likely cause: rounding. Known beside that: the base model's weights were rounded")
    assert (
        "(Q4_1)" in refusal.hint and "up to 5.6 nats" in refusal.hint and "export gguf-q8_0 or gguf-f16" in refusal.hint
    )
    assert "180 of its 272 tensors fell back to other types (61 F32, 31 Q4_K, 180 Q5_0)" in refusal.hint


def test_a_base_that_was_never_rounded_is_not_blamed() -> None:
    (only,) = known_reasons(form(MADE | {"base_rounded_to": None}))
    assert "fell back" in only
    assert known_reasons(form({})) == known_reasons(form(MADE, "gguf-q8_0")) == ()


@pytest.mark.parametrize(
    "changes",
    [{"beyond": ()}, {"prompts": PromptParity(10, 9, 9, Departure("template", 1, "i", 0, "a", "b"))}],
    ids=["within tolerance", "another chat template"],
)
def test_nothing_is_said_of_weights_where_they_are_not_the_matter(changes: dict[str, Any]) -> None:
    unchanged = result(**changes)
    assert with_known_reasons(unchanged, form(MADE)) == unchanged
    assert with_known_reasons(result(), None) == result()
