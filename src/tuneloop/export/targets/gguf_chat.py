"""The chat template that a GGUF file brings along, rendered as transformers renders it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from tuneloop.errors import ModelError
from tuneloop.models.chat import ChatFormat
from tuneloop.records import Message

PROBE = "tuneloop-answer-mark"
CONTROL_TYPES = {2, 3}  # gguf.TokenType.UNKNOWN and CONTROL: what llama.cpp reads as one token wherever it stands


@dataclass(frozen=True)
class GgufChat:
    """A chat template with its beginning and end of text, and the control tokens that a text may not bring along.

    Prompts are written by `models.chat.ChatFormat`, with its rule for control tokens, as in every engine.
    """

    template: str = field(repr=False)
    bos: str
    eos: str
    control_tokens: tuple[str, ...] = field(default=(), repr=False)

    def render(self, system: str | None, document: str) -> str:
        """Return a prompt up to where the assistant speaks, as `models.chat` does.

        Raises: ModelError, UsageError: the template fails.
        """
        if system is None:
            return self._chat.render_conversation([Message("user", document)])
        return self._chat.render(system, document)

    def neutralize(self, text: str) -> str:
        """Return text with every control token broken by a space, as `models.chat` does."""
        return self._chat.neutralize(text)

    @cached_property
    def turn_end(self) -> str:
        """What the template writes after an answer. Raises: ModelError: the template fails."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}]
        try:
            written = _FileTokenizer(self).apply_chat_template(turns, tokenize=False, add_generation_prompt=False)
        except TemplateError as error:
            raise ModelError(
                f"its chat template fails: {error}", where="tokenizer.chat_template", hint="Export the form again."
            ) from error
        return written.partition(PROBE)[2] or self.eos

    @property
    def stops(self) -> tuple[str, ...]:
        """The tokens at which an answer ends: those of the turn's end, and the end of text."""
        in_turn = [token for token in self.control_tokens if token and self.turn_end.startswith(token)]
        return tuple(dict.fromkeys([*in_turn, *([self.eos] if self.eos else [])]))

    @cached_property
    def _chat(self) -> ChatFormat:
        tokenizer: Any = _FileTokenizer(self)
        return ChatFormat(tokenizer)


class _FileTokenizer:
    """As much of a transformers tokenizer as `ChatFormat` needs to write a prompt's text."""

    is_fast = False
    name_or_path = "the GGUF file"

    def __init__(self, chat: GgufChat) -> None:
        self.chat_template, self._bos, self._eos = chat.template, chat.bos, chat.eos
        self.all_special_tokens = [token for token in chat.control_tokens if token]
        self.added_tokens_decoder: dict[int, Any] = {}

    def apply_chat_template(
        self, turns: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Return a conversation as text. Raises: TemplateError: the template refuses it."""
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(
            [[dict(turn) for turn in turns]],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            bos_token=self._bos,
            eos_token=self._eos,
        )
        texts = rendered[0] if isinstance(rendered, tuple) else rendered
        return str(texts[0])


def read_chat(path: Path) -> GgufChat:
    """Return the chat template in a GGUF file.

    Raises: ModelError: the file cannot be read, or has none.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        template = _value(reader, "tokenizer.chat_template")
        tokens = _value(reader, "tokenizer.ggml.tokens") or []
        kinds = _value(reader, "tokenizer.ggml.token_type") or []
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise _unusable(path, f"this GGUF file cannot be read: {error}") from error
    if not isinstance(template, str):
        raise _unusable(path, "this GGUF file has no chat template")
    ids = {role: _value(reader, f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos")}
    words = {role: str(tokens[int(id)]) if id is not None and int(id) < len(tokens) else "" for role, id in ids.items()}
    control = tuple(str(word) for word, kind in zip(tokens, kinds, strict=False) if kind in CONTROL_TYPES)
    return GgufChat(template, words["bos"], words["eos"], control)


def _value(reader: Any, key: str) -> Any:
    found = reader.get_field(key)
    return None if found is None else found.contents()


def _unusable(path: Path, found: str) -> ModelError:
    return ModelError(found, where=str(path), hint="Export the form again.")
