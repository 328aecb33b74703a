"""The chat template that a GGUF file brings along, rendered as transformers renders it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

from tuneloop.errors import ModelError
from tuneloop.models.disguises import ControlWords

PROBE = "tuneloop-answer-mark"
CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL


@dataclass(frozen=True)
class GgufChat:
    """A chat template with its beginning and end of text, and the control tokens that a text may not bring along."""

    template: str = field(repr=False)
    bos: str
    eos: str
    control_tokens: tuple[str, ...] = field(default=(), repr=False)

    def render(self, system: str | None, document: str) -> str:
        """Return a prompt up to where the assistant speaks, as `models.chat` does.

        Raises: ModelError: the template fails.
        """
        user = {"role": "user", "content": document}
        if system is None:
            return self._apply([user])
        if self._takes_system_turn():
            return self._apply([{"role": "system", "content": system}, user])
        return self._apply([{"role": "user", "content": f"{system}\n\n{document}"}])

    def neutralize(self, text: str) -> str:
        """Return text with every control token broken by a space, as `models.chat` does."""
        return ControlWords(self.control_tokens).broken_up(text)

    @property
    def turn_end(self) -> str:
        """What the template writes after an answer."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}]
        return self._apply(turns, generate=False).partition(PROBE)[2] or self.eos

    @property
    def stops(self) -> tuple[str, ...]:
        """The tokens at which an answer ends: those of the turn's end, and the end of text."""
        in_turn = [token for token in self.control_tokens if token and self.turn_end.startswith(token)]
        return tuple(dict.fromkeys([*in_turn, *([self.eos] if self.eos else [])]))

    def _takes_system_turn(self) -> bool:
        try:
            return PROBE in self._apply([{"role": "system", "content": PROBE}, {"role": "user", "content": "x"}])
        except ModelError:
            return False

    def _apply(self, turns: list[dict[str, str]], *, generate: bool = True) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered: Any = render_jinja_template(
                [turns],
                chat_template=self.template,
                add_generation_prompt=generate,
                bos_token=self.bos,
                eos_token=self.eos,
            )
        except TemplateError as error:
            raise ModelError(
                f"its chat template fails: {error}", where="tokenizer.chat_template", hint="Export the form again."
            ) from error
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
    control = tuple(str(word) for word, kind in zip(tokens, kinds, strict=False) if kind == CONTROL_TOKEN)
    return GgufChat(template, words["bos"], words["eos"], control)


def _value(reader: Any, key: str) -> Any:
    found = reader.get_field(key)
    return None if found is None else found.contents()


def _unusable(path: Path, found: str) -> ModelError:
    return ModelError(found, where=str(path), hint="Export the form again.")
