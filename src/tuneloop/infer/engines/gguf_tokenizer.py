"""The tokenizer and chat template inside a GGUF file, with the face that `models.chat.ChatFormat` looks at.

Text becomes tokens by llama.cpp, messages become text by llama-cpp-python's own Jinja formatter: what comes out is what
everyone who uses the file gets, and parity can compare it with the original's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from jinja2.exceptions import TemplateError

from tuneloop.infer.engines.gguf_model import GgufModel

CONTINUATION = 0b10  # the first two bits of the bytes after a character's first one, in UTF-8


@dataclass(frozen=True)
class _ControlToken:
    """A token that means something by itself, as transformers' AddedToken tells it."""

    content: str
    special: bool = True

    def __str__(self) -> str:
        return self.content


class GgufTokenizer:
    """As much of a transformers tokenizer as prompts and answers need."""

    is_fast = True  # it knows the offsets of its tokens
    backend_tokenizer = SimpleNamespace(normalizer=None)

    def __init__(self, model: GgufModel) -> None:
        self._model = model
        self.name_or_path = str(model.path)
        self.chat_template = model.chat_template
        self.bos_token_id, self.eos_token_id = model.begin_id, model.end_id
        self.pad_token_id = self.eos_token_id
        self.added_tokens_decoder: Mapping[int, _ControlToken] = {
            token: _ControlToken(model.written(token)) for token in model.control_ids
        }
        self._ids = {control.content: token for token, control in self.added_tokens_decoder.items()}
        # SentencePiece vocabularies begin a text with a space that is not in it.
        self._begins_with_space = (
            model.metadata.get("tokenizer.ggml.model") == "llama"
            and model.metadata.get("tokenizer.ggml.add_space_prefix", "true") == "true"
        )

    @property
    def all_special_tokens(self) -> list[str]:
        return list(self._ids)

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, return_offsets_mapping: bool = False
    ) -> dict[str, Any]:
        """Return the ids of a text, and with `return_offsets_mapping` which characters each token stands for."""
        ids = self._model.tokenize(text)
        found: dict[str, Any] = {"input_ids": ids}
        if return_offsets_mapping:
            found["offset_mapping"] = list(self._offsets(text, ids))
        adds_begin = self._model.metadata.get("tokenizer.ggml.add_bos_token") == "true"
        if add_special_tokens and adds_begin and self.bos_token_id is not None:
            found["input_ids"] = [self.bos_token_id, *ids]
        return found

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a control token."""
        return self._ids.get(token)

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Return the text of ids; bytes that are no character yet become U+FFFD."""
        data = b"".join(self._model.piece(token, special=not skip_special_tokens) for token in ids)
        text = data.decode("utf-8", "replace")
        return text.removeprefix(" ") if self._begins_with_space else text

    def apply_chat_template(
        self, turns: Sequence[Mapping[str, str]], *, tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        """Return a conversation as text. Raises: TemplateError: the template refuses it."""
        words = (self._written(self.eos_token_id), self._written(self.bos_token_id))
        formatter = _formatter(self.chat_template or "", *words, add_generation_prompt)
        try:
            return str(formatter(messages=[dict(turn) for turn in turns]).prompt)
        except ValueError as error:  # what the formatter makes of a template's raise_exception
            raise TemplateError(str(error)) from error

    def _written(self, token: int | None) -> str:
        return "" if token is None else self._model.written(token)

    def _offsets(self, text: str, ids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield (first character, end) for each token; a part of a character counts as the whole of it."""
        data = text.encode("utf-8")
        character_at = [-1] * (len(data) + 1)
        character = -1
        for place, byte in enumerate(data):
            character += byte >> 6 != CONTINUATION
            character_at[place] = character
        character_at[len(data)] = len(text)
        place = -1 if self._begins_with_space and not text.startswith(" ") else 0
        for token in ids:
            start, place = place, place + len(self._model.piece(token, special=True))
            last = character_at[min(max(place - 1, 0), len(data))]
            yield character_at[min(max(start, 0), len(data))], min(last + 1, len(text))


@lru_cache(maxsize=8)
def _formatter(template: str, eos_token: str, bos_token: str, add_generation_prompt: bool) -> Any:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    return Jinja2ChatFormatter(
        template, eos_token=eos_token, bos_token=bos_token, add_generation_prompt=add_generation_prompt
    )
