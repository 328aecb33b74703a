from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.formats import normalize
from tuneloop.serve.texts import ReadText


def test_the_model_reads_what_training_would_have_seen() -> None:
    assert ReadText.of(" caf\u0065\u0301\r\n ").text == "caf\u00e9"


@pytest.mark.parametrize(
    ("sent", "value", "found"),
    [
        ("Tom and Tom", "Tom", ["Tom", "Tom"]),
        ("  \r\n Zoe\u0308 came", "Zo\u00eb", ["Zoe\u0308"]),
        ("a\r\nb\rTom", "Tom", ["Tom"]),
        ("a\r\nb c", "a\nb", ["a\r\nb"]),
        ("\u1112\u1161\u11ab says hi", "\ud55c", ["\u1112\u1161\u11ab"]),  # Hangul from its letters
        ("aaaa", "aa", ["aa", "aa"]),
        ("nothing here", "Tom", []),
        ("x\u0301\u0323y", "y", ["y"]),  # marks that change places
        ("  Tom", "Tom", ["Tom"]),
    ],
)
def test_a_value_is_found_where_the_caller_wrote_it(sent: str, value: str, found: list[str]) -> None:
    assert [sent[start:end] for start, end in ReadText.of(sent).occurrences(value)] == found


@given(st.text(alphabet=st.sampled_from("ab \r\n\u0301\u0323\u00e9\u1112\u1161\u11ab\u09c7\u09be\u2126"), max_size=30))
def test_every_part_of_what_is_read_is_found_again_in_what_was_sent(sent: str) -> None:
    read = ReadText.of(sent)
    for start in range(len(read.text)):
        begin, end = read.span_in_sent(start, start + 1)
        assert 0 <= begin < end <= len(sent)
        assert read.text[start] in normalize(f".{sent[begin:end]}.")


def test_an_empty_value_occurs_nowhere() -> None:
    assert ReadText.of("abc").occurrences("") == []
