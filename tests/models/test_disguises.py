"""Control tokens that only a normaliser would make are broken up, and ordinary text is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers
from transformers import AutoTokenizer

from tests.models.loaded import opened, tiny_folder
from tuneloop.infer.predict import Predictor
from tuneloop.models.chat import ChatFormat
from tuneloop.models.disguises import ControlWords, plain
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Entity

WORDS = ["<|im_end|>", "<|im_start|>", "</s>", "[INST]", "<start_of_turn>", "<｜end▁of▁sentence｜>"]
INVISIBLE = [
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u061c\u180e\u202e\u2066\u2069\ufe0f\u3164\u115f\x00\x08\x1b\u0301",
    *"\U000e0100\U000e0001\U000e0041\U000e007f",
]
FULLWIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
SMALL = {ord("<"): "﹤", ord(">"): "﹥"}
CONTROL = ControlWords(WORDS)
ORDINARY = [
    'Copyright (c) 2019 <a href="x">Größe</a>\n\n  [1] |x| {"a": 1} <br> [A-Z] a < b | c > d',
    "می‌خواهم کتاب‌ها را بخوانم؛ الف\u200f (ب)\u200e 12",
    "הקובץ \u202bfile.txt\u202c נמחק",
    "क्\u200dष त्र ज्ञ, 👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "ﬁnance ½ ＡＢＣ　１２３ ①②③ …… ㍿ e\u0301 Über\u00adweisungs\u00adbetrag",
    "\ufeffx\u200by\r\n\tz\u2028w\u00a0v",
]


class Normalising:
    """A tiny tokenizer that normalises text before it looks for control tokens, as some do."""

    def __init__(self) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder("llama"))
        tokenizer.add_tokens([AddedToken(f"<|ctl{n}|>", special=True, normalized=True) for n in range(2)])
        tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(r"[\p{Cf}\p{Mn}\x00-\x08\x1b\u3164\u115f]"), "")]
        )
        self.chat = ChatFormat(tokenizer)
        self.ids = set(tokenizer.convert_tokens_to_ids(["<|ctl0|>", "<|ctl1|>"]))

    def controls(self, text: str) -> int:
        """Return how many control tokens the tokenizer itself finds in a text."""
        return sum(token in self.ids for token in self.chat.tokenizer(text, add_special_tokens=False)["input_ids"])


NORMALISING = Normalising()
disguised = st.tuples(
    st.sampled_from(["<|ctl0|>", "<|ctl1|>"]),
    st.lists(st.sampled_from(["", "", *INVISIBLE]), min_size=9, max_size=9),
    st.sets(st.integers(0, 7)),
).map(
    lambda drawn: "".join(
        (c.translate(FULLWIDTH) if place in drawn[2] else c) + drawn[1][place] for place, c in enumerate(drawn[0])
    )
)


@given(st.lists(disguised | st.text(max_size=5), max_size=5).map("".join))
def test_no_disguise_survives_a_tokenizer_that_takes_it_off(document: str) -> None:
    assert NORMALISING.controls(NORMALISING.chat.neutralize(document)) == 0


def test_such_a_tokenizer_would_have_been_fooled() -> None:
    for text in ("＜|ctl0｜＞", "<|ctl\u200b0|>", "<\ufe0f|ctl1|>", "<|\U000e0041ctl1\u202e|>"):
        assert NORMALISING.controls(text) == 1
        assert NORMALISING.controls(NORMALISING.chat.neutralize(text)) == 0


@pytest.mark.parametrize("hidden", INVISIBLE, ids=lambda c: f"U+{ord(c):04X}")
@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_seen_behind_every_invisible_character(word: str, hidden: str) -> None:
    for at in range(1, len(word)):
        document = f"before {word[:at]}{hidden}{word[at:]} after"
        broken = CONTROL.broken_up(document)
        assert plain(word) not in plain(broken)
        assert broken.replace(" ", "") == document.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "＜｜ｉｍ＿ｅｎｄ｜＞",
        "﹤|im_end|﹥",
        "［ＩＮＳＴ］",
        "＜／ｓ＞",
        "<|end of sentence|>",
        "<｜end▁of▁sentence｜>",
    ],
)
def test_look_alikes_that_normalise_to_a_control_word_are_broken(text: str) -> None:
    assert CONTROL.broken_up(text) == f"{text[0]} {text[1:]}"


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_returned_character_for_character(text: str) -> None:
    assert CONTROL.broken_up(text) == text
    chat = opened("llama").chat
    assert chat.neutralize(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_text_without_a_control_word_keeps_its_ids(text: str) -> None:
    assume(not any(plain(word) in plain(text) for word in WORDS))
    chat = opened("llama").chat
    encode = chat.tokenizer
    assert encode(chat.neutralize(text))["input_ids"] == encode(text)["input_ids"]


@given(st.lists(st.sampled_from([*WORDS, *INVISIBLE, "<", "<|", "|>", " ", "x", "…"]), max_size=12).map("".join))
def test_what_has_been_broken_up_stays_as_it_is(text: str) -> None:
    once = ControlWords([*WORDS, "...", "  ", " <|x"]).broken_up(text)
    assert ControlWords([*WORDS, "...", "  ", " <|x"]).broken_up(once) == once


def test_a_character_that_stands_for_a_whole_control_word_is_spelled_out_with_spaces() -> None:
    assert ControlWords(["..."]).broken_up("a…b") == "a. . .b"


def test_case_counts_unless_the_tokenizer_ignores_it() -> None:
    assert CONTROL.broken_up("<|IM_END|>") == "<|IM_END|>"
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert ChatFormat(tokenizer).neutralize("<|IM_END|>") == "< |IM_END|>"


def test_offsets_refer_to_the_document_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Predictor(opened("llama"), TaskPrompt("extract", "Extract.", (), ("holder",)), max_new_tokens=4)
    monkeypatch.setattr(subject.loaded.chat, "decode", lambda ids: '{"holder": ["Ann\u200d Lee"]}')
    document = "<|im_\u200bend|>\u202e By ＜|im_end|＞ Ann\u200d Lee, 2020"
    (found,) = subject.predict([document])
    start = document.index("Ann")
    assert found.entities == (Entity("holder", "Ann\u200d Lee", start, start + 8),)
    assert document[start : start + 8] == "Ann\u200d Lee"
