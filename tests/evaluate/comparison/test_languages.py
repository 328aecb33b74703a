"""Languages are named where the text tells, and not where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.evaluate.comparison.columns import columns_of
from tuneloop.evaluate.comparison.languages import UNCERTAIN, language, languages
from tuneloop.evaluate.comparison.slices import in_words
from tuneloop.records import Example

SENTENCES = {
    "en": "The transfer that I made yesterday has not arrived yet, and nobody answers the telephone.",
    "de": "Die Überweisung von gestern ist noch nicht angekommen, und niemand geht ans Telefon.",
    "fr": "Le virement que j'ai effectué hier n'est pas encore arrivé et personne ne répond au téléphone.",
    "es": "La transferencia que hice ayer todavía no ha llegado y nadie contesta el teléfono.",
    "ru": "Перевод, который я сделал вчера, ещё не пришёл, и никто не отвечает на телефонные звонки.",
    "ja": "昨日した振り込みがまだ届いていませんし、誰も電話に出てくれません。困っていますので調べてください。",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_enough(code: str) -> None:
    assert language(SENTENCES[code]) == code
    assert language(SENTENCES[code].upper()) == code


@pytest.mark.parametrize("text", ["", "ok", "card arrival", "12,000.00 EUR 2024-05-01 / 17:30", "a1b2 c3d4 e5f6 " * 9])
def test_a_few_words_or_numbers_are_no_language(text: str) -> None:
    assert language(text) == UNCERTAIN


@given(st.text(max_size=300))
def test_any_text_has_a_language_or_none_and_always_the_same(text: str) -> None:
    assert language(text) == language(text)


def test_a_language_of_a_few_documents_among_many_is_not_believed() -> None:
    found = languages([SENTENCES["en"]] * 200 + [SENTENCES["fr"]] * 40 + [SENTENCES["es"]] * 2)
    assert (found.count("en"), found.count("fr"), found.count(UNCERTAIN)) == (200, 40, 2)


def items(*codes: str, kept: tuple[tuple[str, str], ...] = ()) -> list[Example]:
    return [
        Example(id=str(n), text=f"{SENTENCES[code]} {n}", label="ab"[n % 2], kept=kept) for n, code in enumerate(codes)
    ]


def test_documents_are_told_apart_by_language_where_there_are_several() -> None:
    mixed = items(*["en"] * 10, *["de"] * 10)
    assert columns_of(mixed)["language"] == ("en",) * 10 + ("de",) * 10
    assert "language" not in columns_of(items(*["en"] * 10))
    assert "language" not in columns_of([*items(*["en"] * 10), Example(id="x", text="ok", label="a")])


def test_a_column_that_says_the_language_is_believed_instead() -> None:
    mixed = items(*["en"] * 10, *["de"] * 10)
    own = columns_of(mixed, {"Locale": ["en-GB"] * 10 + ["de-AT"] * 10})
    assert "language" not in own and own["Locale"] == ("en-GB",) * 10 + ("de-AT",) * 10


def test_a_slice_is_named_by_its_language() -> None:
    assert in_words((("language", "de"),)) == "documents in language de"
    assert in_words((("language", UNCERTAIN),)) == "documents whose language is not certain"
