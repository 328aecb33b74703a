from __future__ import annotations

import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tuneloop.export.licences import Link
from tuneloop.export.sbom import bill_of_materials


def bill(*licences: str | None, name: str = "0a1b2c3d-merged", finished_at: str = "2026-03-01T12:00:00.5+00:00") -> Any:
    data = [Link("training data", f"source {number}", one, "x") for number, one in enumerate(licences)]
    return bill_of_materials(
        id="0a1b2c3d" * 2,
        name=name,
        finished_at=finished_at,
        files={
            "a folder/größe <1>.json": {"sha256": "0" * 64, "size": 3},
            "README.md": {"sha256": "f" * 64, "size": 0},
        },
        chain=[Link("base model", "org/base", licences[0], "x"), *data, Link("this export", name, licences[-1], "x")],
        facts={"form": "merged", "run": "0a1b2c3d"},
    )


def complaints(content: dict[str, Any]) -> list[str]:
    """Return what CycloneDX's own schema says against a document, unknown keys included."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(content), all_errors=True)
    return [str(one.data) for one in found or ()]


@pytest.mark.parametrize(
    "licence", ["Apache-2.0", "MIT OR Apache-2.0", "LicenseRef-internal", "our own <terms>\n", None]
)
@pytest.mark.parametrize("name", ["0a1b2c3d-merged", 'ünder "quotes"'])
def test_a_bill_of_materials_keeps_to_the_schema_of_cyclonedx(licence: str | None, name: str) -> None:
    assert complaints(bill(licence, "CC-BY-4.0", None, licence, name=name)) == []


def test_the_schema_would_tell() -> None:
    content = bill("MIT")
    content["components"][0]["colour"] = "red"
    content["components"][1]["licenses"] = [{"license": {"id": "no such licence"}}]
    assert len(complaints(content)) == 2
    assert complaints(bill("MIT", finished_at="yesterday"))
