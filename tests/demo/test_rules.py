from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.demo.rules import parse_rule, read_rules
from tuneloop.errors import DataError
from tuneloop.progress import SILENT

NOTICE = """---
license_expression: mit OR apache-2.0
is_license_notice: yes
is_continuous: no
relevance: 100
ignorable_holders:
    - 3000
    - no
    - 2019-01-01
ignorable_urls:
    - https://example.org/
---

Copyright 3000. See
  the {{MIT License}}.
---
The end.
"""


def test_a_notice_is_read_with_its_licence_kind_flags_and_text() -> None:
    rule = parse_rule("rules/mit_or_apache-2.0_1.RULE", NOTICE)
    assert (rule.licence, rule.kind, rule.language) == ("mit OR apache-2.0", "notice", "en")
    assert rule.flags == {"is_license_notice"}
    assert rule.text == "Copyright 3000. See\n  the MIT License.\n---\nThe end."


def test_values_that_yaml_takes_for_numbers_dates_or_booleans_stay_what_was_written() -> None:
    rule = parse_rule("rules/a.RULE", NOTICE)
    assert rule.marked == {"holder": ("3000", "no", "2019-01-01"), "url": ("https://example.org/",)}


def test_a_licence_text_has_its_key_as_expression_and_its_category() -> None:
    rule = parse_rule("licenses/no.LICENSE", "---\nkey: no\ncategory: Public Domain\nlanguage: fr\n---\n\nLibre.")
    assert (rule.licence, rule.category, rule.kind, rule.language) == ("no", "Public Domain", "text", "fr")


def test_windows_line_ends_make_no_difference() -> None:
    assert parse_rule("a.RULE", NOTICE.replace("\n", "\r\n")) == parse_rule("a.RULE", NOTICE)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("Permission is granted.", "no front matter"),
        ("---\nkey: [1\n---\ntext", "not YAML"),
        ("---\n- a\n- b\n---\ntext", "not a mapping"),
    ],
)
def test_a_file_that_is_no_rule_is_named(content: str, found: str) -> None:
    with pytest.raises(DataError, match=found) as caught:
        parse_rule("rules/odd_1.RULE", content)
    assert caught.value.where == "rules/odd_1.RULE"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r{}"), max_size=80))
def test_any_text_comes_back_but_for_white_space_around_it(text: str) -> None:
    assert parse_rule("a.RULE", f"---\nlicense_expression: mit\n---\n\n{text}").text == text.strip()


def test_rules_and_licences_are_read_in_order_and_inactive_rules_are_not(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "data.whl", "w") as wheel:
        wheel.writestr("licensedcode/data/rules/b.RULE", NOTICE)
        wheel.writestr("licensedcode/data/rules/a.RULE", NOTICE)
        wheel.writestr("licensedcode/data/inactive/rules/c.RULE", NOTICE)
        wheel.writestr("licensedcode/data/README.rst", "About")
        wheel.writestr("licensedcode/data/licenses/mit.LICENSE", "---\nkey: mit\n---\ntext")
    files = [rule.file for rule in read_rules(tmp_path / "data.whl", SILENT)]
    assert files == ["licenses/mit.LICENSE", "rules/a.RULE", "rules/b.RULE"]
