from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.records import Entity
from tuneloop.serve.redaction import RedactionPolicy, text_sha256

MASK = RedactionPolicy("mask")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ann.lee+x@mail.example.org.", "Write to [EMAIL]."),
        ("IBAN DE89 3704 0044 0532 0130 00, thanks", "IBAN [IBAN], thanks"),
        ("Pay to BE68 5390 0754 7034 NOW", "Pay to [IBAN] NOW"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("DE88370400440532013000 is mistyped", "DE88370400440532013000 is mistyped"),
        ("card 4111 1111 1111 1111 is charged", "card [CARD] is charged"),
        ("order 4111 1111 1111 1112 is charged", "order 4111 1111 1111 1112 is charged"),
        ("from 192.168.12.7 and 2001:db8::8a2e:370:7334", "from [IP] and [IP]"),
        ("section 999.168.12.7 at 10:30:00 of std::vector", "section 999.168.12.7 at 10:30:00 of std::vector"),
        ("call +49 30 1234567 or (030) 123-4567 or 555-123-4567", "call [PHONE] or [PHONE] or [PHONE]"),
        (
            "due 01.02.2026, 01-02-2026 or 2026-02-01; Art. 30, § 17",
            "due 01.02.2026, 01-02-2026 or 2026-02-01; Art. 30, § 17",
        ),
        ("version 1.2.3, EUR 1,234,567.89, 15 employees", "version 1.2.3, EUR 1,234,567.89, 15 employees"),
    ],
)
def test_masking_takes_what_has_a_form_and_leaves_the_rest(text: str, masked: str) -> None:
    assert MASK.document(text, None).text == masked


def test_entities_point_into_the_masked_text() -> None:
    text = "Ann (ann@example.org, +49 30 1234567) signed on 1 May."
    values = ("Ann", "ann@example.org", "example", "1 May", "org, +49")
    entities = [Entity("x", value, text.index(value), text.index(value) + len(value)) for value in values]
    kept = MASK.document(text, [*entities, Entity("mail", "bob@example.org")])
    assert kept.text == "Ann ([EMAIL], [PHONE]) signed on 1 May."
    assert kept.entities is not None
    placed = kept.entities[:-1]
    assert [one.text for one in placed] == ["Ann", "[EMAIL]", "[EMAIL]", "1 May", "[EMAIL], [PHONE]"]
    assert all(kept.text[one.start : one.end] == one.text for one in placed)
    assert kept.entities[-1] == Entity("mail", "[EMAIL]")


def test_own_patterns_are_masked_as_well_and_overlaps_become_one_mask() -> None:
    policy = RedactionPolicy("mask", {"CUSTOMER": re.compile(r"C-\d+ ann")})
    assert policy.document("for C-77 ann@example.org now", None).text == "for [CUSTOMER] now"


@pytest.mark.parametrize(("kind", "has_hash"), [("hash", True), ("drop", False)])
def test_without_a_text_no_value_of_it_is_kept_either(kind: str, has_hash: bool) -> None:
    policy = RedactionPolicy(kind)  # type: ignore[arg-type]
    kept = policy.document("Ann signed", [Entity("name", "Ann", 0, 3)])
    assert kept.text is None
    assert kept.sha256 == (text_sha256("Ann signed") if has_hash else None)
    assert kept.entities == (Entity("name", "", 0, 3),)
    assert policy.value("Ann") == ""
    assert policy.remark("ask ann@example.org") == "ask [EMAIL]"


def test_keeping_everything_keeps_everything() -> None:
    kept = RedactionPolicy().document("ann@example.org", [Entity("mail", "ann@example.org", 0, 15)])
    assert (kept.text, kept.entities) == ("ann@example.org", (Entity("mail", "ann@example.org", 0, 15),))
    assert RedactionPolicy().remark("ann@example.org") == "ann@example.org"


PIECES = st.sampled_from(
    [
        "ann@example.org",
        "+49 30 1234567",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "10.0.0.1",
        " ",
        "a",
        "é",
    ]
)


@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=8), st.data())
def test_every_entity_of_any_text_points_at_its_value(pieces: list[str], data: st.DataObject) -> None:
    text = " ".join(pieces)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    kept = MASK.document(text, [Entity("x", text[start:end], start, end)])
    assert kept.text is not None
    assert kept.entities is not None
    (entity,) = kept.entities
    assert kept.text[entity.start : entity.end] == entity.text
    assert entity.text.count("@") <= text[start:end].count("@")


@pytest.mark.parametrize("unit", ["a", "1 ", "0", ":", "a.", "AA11", "@", "+4", "1.1.", "(0"])
def test_no_text_makes_a_pattern_backtrack_for_ever(unit: str) -> None:
    masked = MASK.document(unit * (100_000 // len(unit)), None).text
    assert masked is not None
    assert len(masked) <= 110_000
