from __future__ import annotations

import pytest

from tuneloop.evaluate.wording import confidence_words


@pytest.mark.parametrize(
    ("confidence", "words"),
    [(0.95, "95 %"), (0.9, "90 %"), (0.9966, "99.7 %"), (0.99996, "99.996 %"), (0.994, "99 %")],
)
def test_a_confidence_is_never_rounded_to_certainty(confidence: float, words: str) -> None:
    assert confidence_words(confidence) == words
