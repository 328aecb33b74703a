from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.models.loaded import opened, random_ids
from tests.models.tiny import Family
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.engines.text_pieces import TextReader, pieces

NASTY = "Größe 日本語 🙂👩‍👩‍👧 naïve\u00a0x"


def as_bytes(ids: Sequence[int]) -> str:
    """Decode as a byte-level tokenizer whose tokens are single bytes."""
    return bytes(ids).decode("utf-8", "replace")


def read(ids: Sequence[int], stop: Sequence[str] = ()) -> list[str]:
    """Return what is given out after each token, and at the end."""
    reader = TextReader(as_bytes, stop)
    given_out = []
    for token in ids:
        given_out.append(reader.add(token))
        if reader.is_stopped:
            return given_out
    return [*given_out, reader.rest()]


def streamed(
    text: str, sampling: Sampling, cancel_after: int | None = None, end: bool = True
) -> tuple[list[Piece], list[int]]:
    """Return the pieces of an answer that says `text` byte by byte, and the tokens that were computed for it."""
    computed: list[int] = []

    def tokens() -> Generator[int]:
        for token in [*text.encode(), *([256] if end else [])]:
            computed.append(token)
            yield token

    def is_cancelled() -> bool:
        return cancel_after is not None and len(computed) >= cancel_after

    def decode(ids: Sequence[int]) -> str:
        return as_bytes([token for token in ids if token < 256])

    found = pieces(tokens(), decode, end_ids=frozenset({256}), sampling=sampling, is_cancelled=is_cancelled)
    return list(found), computed


@given(st.text())
@example(NASTY)
def test_characters_come_whole_however_their_bytes_are_spread_over_tokens(text: str) -> None:
    found = read(text.encode("utf-8", "replace"))
    assert "".join(found) == text.encode("utf-8", "replace").decode()
    assert all("\ufffd" not in piece for piece in found) or "\ufffd" in text


@given(st.binary())
def test_bytes_that_are_no_text_are_decoded_as_they_would_be_at_once(data: bytes) -> None:
    assert "".join(read(data)) == data.decode("utf-8", "replace")


def test_every_character_is_given_out_with_the_last_token_it_needs() -> None:
    assert read("aé🙂".encode()) == ["a", "", "é", "", "", "", "🙂", ""]


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_real_tokenizers_stream_what_they_decode_at_once(family: Family) -> None:
    chat = opened(family).chat
    ids = chat.answer_ids([NASTY], end=False)
    reader = TextReader(chat.decode)
    assert "".join([*map(reader.add, ids), reader.rest()]) == chat.decode(ids) == NASTY


def test_random_tokens_of_a_byte_level_tokenizer_stream_what_they_decode_at_once() -> None:
    chat = opened("llama").chat
    for ids in random_ids([1, 5, 40, 200]):
        reader = TextReader(chat.decode)
        assert "".join([*map(reader.add, ids), reader.rest()]) == chat.decode(ids)


@given(st.text(alphabet="ab\n🙂", max_size=20), st.sampled_from(["ab", "\n\n", "🙂", "aab", "x"]))
def test_a_stop_text_and_what_follows_is_never_given_out(text: str, stop: str) -> None:
    assert "".join(read(text.encode(), (stop,))) == text.partition(stop)[0]


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_none() -> None:
    assert read(b"a\n\nb", ("\n\nc",)) == ["a", "", "", "\n\nb", ""]
    assert read(b"a\n", ("\n\n",)) == ["a", "", "\n"]


def test_an_empty_stop_text_stops_nothing() -> None:
    assert "".join(read(b"abc", ("",))) == "abc"


def test_the_last_piece_says_why_the_answer_ended_and_all_tokens_are_counted() -> None:
    found, computed = streamed("aé", Sampling())
    assert [piece.text for piece in found] == ["a", "é", ""]
    assert [piece.finish_reason for piece in found] == [None, None, "stop"]
    assert sum(piece.tokens for piece in found) == len(computed) == 4


def test_an_answer_that_is_too_long_ends_for_its_length_with_what_was_held_back() -> None:
    found, computed = streamed("ab\nc", Sampling(max_new_tokens=3, stop=("\n\n",)))
    assert "".join(piece.text for piece in found) == "ab\n" and len(computed) == 3
    assert found[-1].finish_reason == "length"
    assert streamed("ab", Sampling(), end=False)[0][-1].finish_reason == "length"


def test_a_stop_text_ends_the_answer_at_once() -> None:
    found, computed = streamed("abcdef", Sampling(stop=("cd",)))
    assert "".join(piece.text for piece in found) == "ab" and found[-1].finish_reason == "stop"
    assert len(computed) == 4


def test_nothing_more_is_computed_once_it_is_cancelled() -> None:
    found, computed = streamed("abcdef", Sampling(), cancel_after=2)
    assert len(computed) == 2 and found[-1] == Piece("", 0, "cancelled")
    assert streamed("abc", Sampling(), cancel_after=0)[1] == []


def test_whoever_stops_listening_closes_what_computes() -> None:
    closed = []

    def tokens() -> Generator[int]:
        try:
            while True:
                yield 97
        finally:
            closed.append(True)

    found = pieces(tokens(), as_bytes, end_ids=frozenset(), sampling=Sampling(), is_cancelled=lambda: False)
    next(found)
    found.close()
    assert closed == [True]
