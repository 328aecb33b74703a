"""Charts are well-formed, follow the page's colours, describe themselves, and come out the same every time."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from tuneloop.evaluate import charts

SVG = "{http://www.w3.org/2000/svg}"
HISTORY: list[dict[str, Any]] = [
    {"step": 1, "train_loss": 2.0, "validation_loss": None, "learning_rate": 1e-4, "grad_norm": 3.0},
    {"step": 2, "train_loss": 1.0, "validation_loss": 1.2, "learning_rate": 1e-3, "grad_norm": float("inf")},
    {"step": 3, "train_loss": float("nan"), "validation_loss": 1.1, "learning_rate": 0.0},
]


def drawings(licences: Any) -> list[str]:
    scores = licences.comparison.subject("tuned")
    drawn = [
        charts.loss_curve(HISTORY),
        charts.learning_rate_curve(HISTORY),
        charts.gradient_norm_curve(HISTORY),
        charts.reliability_diagram(scores.calibration),
        charts.confusion_heat_map(scores.closed.confusion),
    ]
    return [drawing for drawing in drawn if drawing is not None]


def test_every_chart_is_xml_with_a_title_and_a_description(licences: Any) -> None:
    found = drawings(licences)
    assert len(found) == 5
    for drawing in found:
        root = ElementTree.fromstring(drawing)
        title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
        assert title is not None and title.text
        assert description is not None and description.text
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_no_chart_has_a_colour_of_its_own_or_a_style_for_the_whole_page(licences: Any) -> None:
    for drawing in drawings(licences):
        assert re.findall(r"#[0-9a-f]{6}\b", drawing) == []
        assert "var(--series-1)" in drawing
        assert "<style" not in drawing
        assert "font-family" not in drawing


def test_charts_on_one_page_do_not_share_an_id(licences: Any) -> None:
    ids = [name for drawing in drawings(licences) for name in re.findall(r'\bid="([^"]+)"', drawing)]
    assert len(ids) == len(set(ids))
    used = {name for drawing in drawings(licences) for name in re.findall(r'(?:href="|url\()#([^")]+)', drawing)}
    assert used <= set(ids)


def test_the_same_data_gives_the_same_bytes() -> None:
    assert charts.loss_curve(HISTORY) == charts.loss_curve(HISTORY)


def test_figures_that_are_not_finite_are_left_out() -> None:
    assert "training from 2 to 1;" in (charts.loss_curve(HISTORY) or "")
    assert "from 3, at most 3, to 3" in (charts.gradient_norm_curve(HISTORY) or "")


@pytest.mark.parametrize("history", [[], [{"step": 1}], [{"step": 1, "train_loss": None}]])
def test_nothing_recorded_is_nothing_drawn(history: list[dict[str, Any]]) -> None:
    assert charts.loss_curve(history) is None
    assert charts.learning_rate_curve(history) is None
    assert charts.gradient_norm_curve(history) is None
