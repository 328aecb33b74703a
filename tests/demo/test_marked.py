from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.demo.marked import find_marked


@pytest.mark.parametrize(
    ("type", "value", "text", "found"),
    [
        ("holder", "Red Hat, Inc.", "by Red Hat, Inc., and", "Red Hat, Inc."),
        ("holder", "Red Hat, Inc.", "by Red\n  Hat, Inc.", "Red\n  Hat, Inc."),
        ("copyright", "Copyright (c) 2019 A. B.", "COPYRIGHT (C) 2019 A. B.", "COPYRIGHT (C) 2019 A. B."),
        ("copyright", "Copyright (c) 2019 A. B.", "Copyright © 2019 A. B.", "Copyright © 2019 A. B."),
        ("url", "http://llvm.org/", "see (http://llvm.org) for", "http://llvm.org"),
        ("url", "http://llvm.org/", "see http://LLVM.org/.", "http://LLVM.org/"),
        ("url", "http://llvm.org/", "see http://llvm.organic", None),
        ("holder", "Red Hat", "by Redhat", None),
        ("holder", "Muller (x+)", "Muller (xx)", None),
        ("holder", " ", "ab", None),
    ],
)
def test_a_value_is_given_as_the_text_has_it(type: str, value: str, text: str, found: str | None) -> None:
    assert find_marked(text, type, value) == found


@given(st.text(max_size=40), st.text(max_size=10), st.sampled_from(["holder", "url", "copyright"]))
def test_what_is_found_always_occurs_in_the_text(text: str, value: str, type: str) -> None:
    found = find_marked(text, type, value)
    assert found is None or found in text


@given(st.text(max_size=10), st.text(min_size=1, max_size=10), st.text(max_size=10))
def test_a_verbatim_value_is_always_found(before: str, value: str, after: str) -> None:
    assert find_marked(before + value + after, "holder", value) == value
