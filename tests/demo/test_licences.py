from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest
import yaml
from license_expression import Licensing

from tuneloop.artifacts import sha256_of
from tuneloop.config.schema import Config
from tuneloop.demo import licences
from tuneloop.demo.licences import (
    DEPRECATED,
    DIFFERENT_CATEGORIES,
    EMPTY,
    FALSE_POSITIVE,
    NO_LICENCE,
    UNKNOWN_LICENCE,
    LicenceTable,
    build_licence_table,
    category_of,
    group_of,
)
from tuneloop.errors import NetworkError
from tuneloop.progress import SILENT
from tuneloop.wheels import Wheel

CATEGORIES = {"mit": "Permissive", "bsd-new": "Permissive", "gpl-2.0": "Copyleft", "classpath": "Copyleft Limited"}
DOCUMENTS = {
    **{
        f"licenses/{key}.LICENSE": f"key: {key}\ncategory: {name}\n---\n\nText of {key}"
        for key, name in CATEGORIES.items()
    },
    "rules/mit_1.RULE": (
        "license_expression: mit\nis_license_notice: yes\nignorable_holders:\n    - Ann Example\n    - Nobody\n"
        "ignorable_urls:\n    - https://example.org/\n---\n\nSee https://example.org. By Ann\nExample, under MIT."
    ),
    "rules/mit_2.RULE": (
        "license_expression: mit\nis_license_notice: yes\nignorable_holders:\n    - Bo Other\n"
        "ignorable_urls:\n    - https://example.org/\n---\n\n# See https://example.org: by Bo Other, under MIT"
    ),
    "rules/mit_or_bsd.RULE": "license_expression: mit OR bsd-new\nis_license_tag: yes\n---\n\nMIT/BSD",
    "rules/gpl_classpath.RULE": "license_expression: gpl-2.0 WITH classpath\nis_license_tag: yes\n---\n\nGPL with CPE",
    "rules/dual_1.RULE": "license_expression: gpl-2.0 OR mit\nis_license_tag: yes\n---\n\nGPL or MIT",
    "rules/dual_2.RULE": "license_expression: gpl-2.0 OR mit\nis_license_tag: yes\n---\n\nMIT or GPL",
    "rules/no.RULE": "is_license_tag: yes\n---\n\nsomething",
    "rules/odd.RULE": "license_expression: not-there\nis_license_tag: yes\n---\n\nsomething",
    "rules/old.RULE": "license_expression: mit\nis_deprecated: yes\n---\n\nMIT, of old",
    "rules/wrong.RULE": "is_false_positive: yes\n---\n\nmit.edu",
    "rules/empty.RULE": "license_expression: mit\nis_license_tag: yes\n---\n\n",
}


@pytest.fixture
def small_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel with a handful of rules, already in a cache of its own."""
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "wheels" / "small-1-py3-none-any.whl"
    path.parent.mkdir(parents=True)
    with ZipFile(path, "w") as archive:
        for name, content in DOCUMENTS.items():
            archive.writestr(f"licensedcode/data/{name}", f"---\n{content}")
    wheel = Wheel("small", "1", path.name, sha256_of(path), path.stat().st_size)
    monkeypatch.setattr(licences, "LICENCE_WHEEL", wheel)
    return wheel


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["rule"]: row for row in pq.read_table(path).to_pylist()}


def test_documents_get_the_category_of_their_licences(small_wheel: Wheel) -> None:
    rows = rows_of(build_licence_table(SILENT).path)
    assert {rule: row["category"] for rule, row in rows.items() if rule.startswith("rules")} == {
        "rules/mit_1.RULE": "Permissive",
        "rules/mit_2.RULE": "Permissive",
        "rules/mit_or_bsd.RULE": "Permissive",
    }
    assert rows["licenses/gpl-2.0.LICENSE"]["category"] == "Copyleft"
    assert rows["rules/mit_or_bsd.RULE"]["licence"] == "mit OR bsd-new"


def test_everything_left_out_is_counted_by_reason(small_wheel: Wheel) -> None:
    counts = build_licence_table(SILENT).counts
    assert counts.dropped == {
        DIFFERENT_CATEGORIES: 3,
        DEPRECATED: 1,
        EMPTY: 1,
        FALSE_POSITIVE: 1,
        NO_LICENCE: 1,
        UNKNOWN_LICENCE: 1,
    }
    assert counts.expressions_of_different_categories == 2
    assert counts.read == len(DOCUMENTS) == counts.kept + sum(counts.dropped.values())
    assert counts.entities == {"holder": 2, "url": 2} and counts.entities_not_in_text == {"holder": 1}
    assert next(iter(counts.categories.items())) == ("Permissive", 5)


def test_entities_stand_in_the_text_as_given(small_wheel: Wheel) -> None:
    row = rows_of(build_licence_table(SILENT).path)["rules/mit_1.RULE"]
    assert json.loads(row["entities"]) == [
        {"type": "holder", "text": "Ann\nExample"},
        {"type": "url", "text": "https://example.org"},
    ]


def test_the_same_notice_for_another_holder_is_in_the_same_group(small_wheel: Wheel) -> None:
    rows = rows_of(build_licence_table(SILENT).path)
    assert rows["rules/mit_1.RULE"]["group"] == rows["rules/mit_2.RULE"]["group"]
    assert rows["rules/mit_1.RULE"]["group"] != rows["rules/mit_or_bsd.RULE"]["group"]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("licensed under GPL version 2", "* Licensed under  GPL, version 3.", True),
        ("licensed under the GPL", "licensed under the LGPL", False),
        ("GPL-2", "GPL-3", False),
        ("...", "***", False),
    ],
)
def test_groups_ignore_capitals_layout_and_numbers_but_not_words(one: str, other: str, is_same: bool) -> None:
    assert (group_of(one, []) == group_of(other, [])) is is_same


def test_a_copy_in_a_folder_is_kept_when_equal_and_replaced_when_altered(small_wheel: Wheel, tmp_path: Path) -> None:
    made = build_licence_table(SILENT, tmp_path / "demo").path
    content, written = made.read_bytes(), made.stat().st_mtime_ns
    build_licence_table(SILENT, tmp_path / "demo")
    assert made == tmp_path / "demo" / "licences.parquet" and made.stat().st_mtime_ns == written
    made.write_bytes(b"altered")
    build_licence_table(SILENT, tmp_path / "demo")
    assert made.read_bytes() == content
    assert "CC-BY-4.0" in (tmp_path / "demo" / "licences.md").read_text()


def test_the_same_wheel_gives_the_same_bytes_and_they_carry_the_attribution(
    small_wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_licence_table(SILENT)
    metadata = pq.read_schema(first.path).metadata
    assert metadata[b"license"] == b"CC-BY-4.0" and b"nexB" in metadata[b"attribution"]
    monkeypatch.setattr(licences, "TABLE_VERSION", 999)
    second = build_licence_table(SILENT)
    assert first.path != second.path and first.path.read_bytes() == second.path.read_bytes()
    assert first.counts == second.counts


def test_an_expression_that_cannot_be_parsed_has_no_category() -> None:
    assert category_of("mit OR OR", CATEGORIES, Licensing()) == ("", UNKNOWN_LICENCE)


def test_the_demo_configuration_fits_the_schema_and_the_tables_columns(small_wheel: Wheel) -> None:
    text = files("tuneloop.demo").joinpath("tuneloop.yaml").read_text(encoding="utf-8")
    config = Config.model_validate(yaml.safe_load(text))
    source = config.data.sources[0]
    table = build_licence_table(SILENT)
    assert source.path == Path(table.path.name)
    columns = source.columns
    named = {columns.text, columns.label, columns.entities, columns.group}
    assert named <= set(pq.read_schema(table.path).names)


@pytest.fixture(scope="session")
def real_table() -> LicenceTable:
    """The whole table, from the user's own cache: a fetch of 25 MiB and half a minute, once per user."""
    try:
        return build_licence_table(SILENT)
    except NetworkError as error:
        pytest.skip(f"the licence rules cannot be fetched: {error.message}")


def test_the_real_rules_give_eleven_categories_and_entities_that_stand_in_their_texts(real_table: LicenceTable) -> None:
    counts = real_table.counts
    assert (counts.read, counts.kept, counts.dropped[DIFFERENT_CATEGORIES]) == (37_169, 32_244, 3_082)
    assert len(counts.categories) == 11 and min(counts.categories.values()) >= 28
    rows = pq.read_table(real_table.path, columns=["text", "entities"]).to_pylist()
    assert all(entity["text"] in row["text"] for row in rows for entity in json.loads(row["entities"]))
    assert not any("{{" in row["text"] for row in rows)
