from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.infer.engines.protocol import Sampling
from tuneloop.infer.engines.sampling import TokenChooser

LOGITS = np.log(np.array([0.5, 0.05, 0.3, 0.15], dtype=np.float32))


def drawn(sampling: Sampling, count: int = 4000) -> Counter[int]:
    chooser = TokenChooser(sampling)
    return Counter(chooser.choose(LOGITS) for _ in range(count))


def test_without_temperature_the_likeliest_token_is_chosen() -> None:
    assert drawn(Sampling(temperature=0), 20) == {0: 20}


def test_tokens_come_as_often_as_they_are_likely() -> None:
    found = drawn(Sampling(temperature=1, seed=1))
    for token, share in enumerate([0.5, 0.05, 0.3, 0.15]):
        assert found[token] / 4000 == pytest.approx(share, abs=0.03)


def test_a_higher_temperature_evens_the_chances_out() -> None:
    found = drawn(Sampling(temperature=100, seed=1))
    assert min(found.values()) > 800
    assert drawn(Sampling(temperature=0.01, seed=1)) == {0: 4000}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, {0}), (0.5, {0}), (0.6, {0, 2}), (0.9, {0, 2, 3}), (1.0, {0, 1, 2, 3})]
)
def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p(top_p: float, kept: set[int]) -> None:
    assert set(drawn(Sampling(temperature=1, top_p=top_p, seed=1))) == kept


def test_a_seed_gives_the_same_tokens_again_and_another_seed_others() -> None:
    def run(seed: int) -> list[int]:
        chooser = TokenChooser(Sampling(temperature=1, seed=seed))
        return [chooser.choose(LOGITS) for _ in range(50)]

    assert run(1) == run(1) != run(2)


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.floats(1e-3, 50),
    st.floats(1e-6, 1),
    st.integers(0, 10),
)
def test_whatever_the_logits_a_token_of_the_vocabulary_is_chosen(
    logits: list[float], temperature: float, top_p: float, seed: int
) -> None:
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    assert 0 <= TokenChooser(sampling).choose(np.array(logits, dtype=np.float32)) < len(logits)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"temperature": float("nan")}]
)
def test_settings_without_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="top_p"):
        TokenChooser(Sampling(**wrong))  # type: ignore[arg-type]
