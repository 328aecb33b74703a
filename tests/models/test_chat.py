from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.models.loaded import tiny_folder
from tests.models.tiny import FAMILIES, Family
from tuneloop.errors import ModelError
from tuneloop.models.chat import ChatFormat

GEMMA_LIKE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
FORGETS_SYSTEM = (
    "{% for message in messages if message['role'] != 'system' %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
LLAMA2_LIKE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>' + message['content'] + '<</SYS>>' }}"
    "{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": None, "gemma": GEMMA_LIKE, "forgets-system": FORGETS_SYSTEM, "llama2": LLAMA2_LIKE, "none": ""}
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
MARKS = {"gemma": ["<start_of_turn>", "<end_of_turn>"], "llama2": ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]}
CONTROL = [*SPECIAL, *MARKS["gemma"], *MARKS["llama2"]]
SYSTEM = "Classify the document. Labels: Copyleft, Permissive."


def chat(template: str = "chatml", family: Family = "llama") -> ChatFormat:
    """Return a tiny tokenizer's chat format with one of the templates; '' means that it has none at all."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder(family))
    text = TEMPLATES[template]
    if template == "gemma":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    if text is not None:
        tokenizer.chat_template = text or None
    return ChatFormat(tokenizer)


CHATS = {name: chat(name) for name in TEMPLATES}
hostile = st.lists(
    st.one_of(st.sampled_from([*CONTROL, "\n", " ", "<|im_", "end|>", "<", "|>", "[/", "INST]"]), st.text(max_size=4)),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=60)
@given(document=hostile, system=hostile)
def test_no_document_can_end_its_turn_or_begin_another(template: str, document: str, system: str) -> None:
    subject = CHATS[template]
    tame, rendered = subject.render("s", "d"), subject.render(system, document)
    for word in [*SPECIAL, *MARKS.get(template, [])]:
        assert rendered.count(word) == tame.count(word)
    controls = set(subject.tokenizer.all_special_ids)
    counts = [sum(token in controls for token in subject.tokenizer(text)["input_ids"]) for text in (rendered, tame)]
    assert counts[0] == counts[1]


@given(hostile)
def test_what_has_been_made_harmless_stays_as_it_is(document: str) -> None:
    once = CHATS["chatml"].neutralize(document)
    assert CHATS["chatml"].neutralize(once) == once
    assert [c for c in once if not c.isspace()] == [
        c if not "\ud800" <= c <= "\udfff" else "?" for c in document if not c.isspace()
    ]


def test_an_ordinary_document_is_not_touched() -> None:
    text = 'Copyright (c) 2019 <a href="x">Größe</a>\n\n  [1] |x| {"a": 1} <br> [A-Z]'
    assert all(subject.neutralize(text) == text for subject in CHATS.values())


def test_words_that_were_added_to_a_tokenizer_without_meaning_are_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.add_tokens(["    ", "<table>"])
    assert ChatFormat(tokenizer).neutralize("a    b <table>") == "a    b <table>"


def test_added_words_that_look_like_control_tokens_are_such_whatever_the_tokenizer_says() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.add_tokens(["<|fim_prefix|>", "<unused7>", "<tool>"])
    assert ChatFormat(tokenizer).neutralize("<|fim_prefix|><unused7><tool>") == "< |fim_prefix|>< unused7><tool>"


def test_half_surrogates_do_not_stop_a_prompt() -> None:
    assert CHATS["chatml"].prompt_ids("s", "a\ud800b") == CHATS["chatml"].prompt_ids("s", "a?b")


def test_a_control_token_in_an_answer_does_not_end_it() -> None:
    subject = CHATS["chatml"]
    ids = subject.answer_ids(["a<|im_end|>b"])
    assert ids.count(subject.end_of_turn_id) == 1 and ids[-1] == subject.end_of_turn_id


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nD<|im_end|>\n<|im_start|>assistant\n"),
        ("gemma", "<start_of_turn>user\nS\n\nD<end_of_turn>\n<start_of_turn>model\n"),
        ("forgets-system", "<|im_start|>user\nS\n\nD<|im_end|>\n<|im_start|>assistant\n"),
        ("llama2", "<<SYS>>S<</SYS>>[INST] D [/INST]"),
        ("none", "S\n\nD\n\nAnswer: "),
    ],
)
def test_the_prompt_says_system_and_document_in_the_models_own_way(template: str, prompt: str) -> None:
    assert CHATS[template].render("S", "D") == prompt


@pytest.mark.parametrize(
    ("template", "token"),
    [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("llama2", "<|im_end|>"), ("none", "<|im_end|>")],
)
def test_the_end_of_a_turn_is_what_the_template_writes_after_an_answer(template: str, token: str) -> None:
    subject = CHATS[template]
    assert subject.tokenizer.convert_ids_to_tokens(subject.end_of_turn_id) == token


def test_an_end_of_turn_that_is_special_without_a_role_is_found() -> None:
    """As in Phi-3 and Gemma 3, whose lists of special tokens do not name it."""
    from tokenizers import AddedToken

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=True), AddedToken("<start_of_turn>", special=True)])
    tokenizer.chat_template = GEMMA_LIKE
    assert "<end_of_turn>" not in tokenizer.all_special_tokens
    subject = ChatFormat(tokenizer)
    assert subject.end_of_turn_id == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert "<end_of_turn>" not in subject.neutralize("<end_of_turn>")


def test_a_tokenizer_without_eos_ends_turns_as_its_template_does_or_says_what_is_missing() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    end = tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert ChatFormat(tokenizer).end_of_turn_id == end
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match="ends an answer") as caught:
        _ = ChatFormat(tokenizer).end_of_turn_id
    assert "eos_token" in caught.value.hint


def test_a_base_model_that_begins_every_text_with_a_token_gets_it() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.chat_template = None
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    ids = ChatFormat(tokenizer).prompt_ids("S", "D")
    assert ids[0] == bos and ids.count(bos) == 1
    assert bos not in CHATS["none"].prompt_ids("S", "D")


def test_a_broken_template_is_an_error_with_advice() -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("llama"))
    tokenizer.chat_template = "{% for message in messages %}{{ message"
    with pytest.raises(ModelError, match="chat template fails") as caught:
        ChatFormat(tokenizer).render("s", "d")
    assert "original model" in caught.value.hint


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=30)
@given(document=hostile)
def test_prompt_ids_are_those_of_the_rendered_text(template: str, document: str) -> None:
    subject = CHATS[template]
    text = subject.render(SYSTEM, document)
    assert subject.prompt_ids(SYSTEM, document) == subject.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40)
@given(
    st.sampled_from(
        [("Copyleft",), ("Public Domain",), ('{"label": "Permissive"', ', "entities": {}}'), ("  x ", "\n")]
    )
)
def test_the_ids_of_an_answer_spell_it_and_end_the_turn(family: Family, pieces: tuple[str, ...]) -> None:
    subject = chat(family=family)
    ids = subject.answer_ids(pieces)
    assert subject.decode(ids) == "".join(pieces)
    assert ids[-1] == subject.end_of_turn_id
    assert subject.answer_ids(pieces, end=False) == ids[:-1]
    assert [t for piece in pieces for t in subject.answer_ids([piece], end=False)] == ids[:-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["Copyleft", "Public Domain", '{"label": "x"'])
def test_prompt_and_answer_are_the_ids_of_the_whole_text(family: Family, answer: str) -> None:
    subject = chat(family=family)
    whole = subject.tokenizer(subject.render(SYSTEM, "d") + answer, add_special_tokens=False)["input_ids"]
    assert subject.prompt_ids(SYSTEM, "d") + subject.answer_ids([answer], end=False) == whole


def test_no_space_is_put_before_an_answer_by_a_tokenizer_that_puts_one_before_every_text() -> None:
    from tokenizers import normalizers

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder("gemma"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    subject = ChatFormat(tokenizer)
    assert subject.decode(subject.answer_ids(["Copyleft"])) == "Copyleft"


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=40)
@given(document=st.text(st.characters(exclude_categories=["Cs"]), max_size=200), room=st.integers(0, 120))
def test_a_long_document_is_cut_at_its_end_and_the_template_stays_whole(
    template: str, document: str, room: int
) -> None:
    subject = CHATS[template]
    empty = subject.prompt_ids(SYSTEM, "")
    limit = len(empty) + room + 2  # what stands beside an empty document may be one token more than it was
    ids, cut = subject.fitted_prompt_ids(SYSTEM, document, limit)
    assert len(ids) <= limit
    assert cut == (len(subject.prompt_ids(SYSTEM, document)) > limit)
    text = str(subject.tokenizer.decode(ids))
    head, tail = subject.render(SYSTEM, "\0").split("\0")
    assert text.startswith(head.rstrip()) and text.endswith(tail.lstrip())


def test_as_much_of_a_document_is_kept_as_fits() -> None:
    subject = CHATS["chatml"]
    document = "The transfer has not arrived yet, 2019. " * 50
    limit = len(subject.prompt_ids(SYSTEM, "")) + 100
    ids, cut = subject.fitted_prompt_ids(SYSTEM, document, limit)
    assert cut and limit - 5 <= len(ids) <= limit


def test_control_tokens_in_a_document_do_not_cost_it_more_than_they_have_to() -> None:
    subject = CHATS["chatml"]
    document = "Keep this. " + "<|im_end|>" * 500
    limit = len(subject.prompt_ids(SYSTEM, "Keep this. ")) + 50
    ids, cut = subject.fitted_prompt_ids(SYSTEM, document, limit)
    assert cut and limit - 10 <= len(ids) <= limit and "Keep this. <" in subject.tokenizer.decode(ids)


def test_a_prompt_that_is_too_long_without_any_document_comes_back_whole() -> None:
    subject = CHATS["chatml"]
    ids, cut = subject.fitted_prompt_ids(SYSTEM, "a b c", 5)
    assert ids == subject.prompt_ids(SYSTEM, "") and cut


def test_what_fits_is_not_cut() -> None:
    subject = CHATS["chatml"]
    ids = subject.prompt_ids(SYSTEM, "a b c")
    assert subject.fitted_prompt_ids(SYSTEM, "a b c", len(ids)) == (ids, False)
