"""THE chat template and loss mask: how a system text, a document and an answer become token ids, everywhere.

A prompt is rendered by the model's own chat template up to the point where the assistant speaks; an answer is tokenised
on its own after that point, in training, scoring and generation alike, so that all three see the same ids. Loss falls
on the answer, end of turn included, and on nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from tuneloop.errors import ModelError, UsageError
from tuneloop.models.disguises import ControlWords
from tuneloop.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
PROBE = "tuneloop probe"
MARKER = re.compile(r"<+[^<>\s]+>+|\[/?[A-Z_]+\]")  # how templates write turns in plain text: [/INST], <<SYS>>, </s>

# Added tokens that are control tokens whatever the tokenizer says (llama.cpp, convert_hf_to_gguf.py,
# does_token_look_special).
LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


class ChatFormat:
    """One tokenizer's way of writing prompts and answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            begins = "{{ bos_token }}" if self._adds_bos else ""
            tokenizer.chat_template = begins + PLAIN_TEMPLATE

    def render(self, system: str, document: str) -> str:
        """Return the prompt text up to the point where the assistant speaks.

        Control tokens of the template inside both texts are broken up, so a document cannot end its own turn, nor can
        one that is shown as an example in the system text.

        Raises: ModelError: the model's template fails.
        """
        try:
            return self._apply(self.turns(system, document), add_generation_prompt=True)
        except TemplateError as error:
            raise ModelError(
                f"its chat template fails: {error}",
                where=str(self.tokenizer.name_or_path or "tokenizer"),
                hint="Take the chat template of the original model; it may be damaged here.",
            ) from error

    def turns(self, system: str, document: str) -> list[dict[str, str]]:
        """Return what the template is given: both texts without control tokens, as one turn where it takes no other."""
        system, document = self.neutralize(system), self.neutralize(document)
        if self._takes_system_turn:
            return [{"role": "system", "content": system}, {"role": "user", "content": document}]
        return [{"role": "user", "content": f"{system}\n\n{document}"}]

    def render_conversation(self, messages: Sequence[Message]) -> str:
        """Return a conversation up to the point where the assistant speaks next, control tokens in it broken up.

        Raises: UsageError: the model's template refuses these turns.
        """
        try:
            return self._apply(self.conversation_turns(messages), add_generation_prompt=True)
        except TemplateError as error:
            raise UsageError(
                f"this model's chat template refuses the conversation: {error}",
                where="messages",
                hint="Let user and assistant take turns, the user first; a system message comes before both.",
            ) from error

    def conversation_turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Return what the template is given for a conversation; a system message is part of the first turn where the
        template takes no other.
        """
        turns = [{"role": message.role, "content": self.neutralize(message.content)} for message in messages]
        if not self._takes_system_turn and len(turns) > 1 and turns[0]["role"] == "system":
            turns[:2] = [{**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"}]
        return turns

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of the rendered conversation."""
        return self._encode(self.render_conversation(messages))

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a plain text, control tokens in it broken up, as the beginning of a sequence."""
        ids = self._encode(self.neutralize(text))
        bos = self.tokenizer.bos_token_id
        return [bos, *ids] if self._adds_bos and bos is not None else ids

    def prompt_ids(self, system: str, document: str) -> list[int]:
        """Return the token ids of the rendered prompt."""
        return self._encode(self.render(system, document))

    def fitted_prompt_ids(self, system: str, document: str, limit: int) -> tuple[list[int], bool]:
        """Return at most `limit` ids of the rendered prompt and whether the document's end had to be cut for that.

        More than `limit` ids come back only where the prompt without any document has more.
        """
        ids, document = self.prompt_ids(system, document), self.neutralize(document)
        cut = False
        while len(ids) > limit and document:
            document, cut = self._shortened(document, len(ids) - limit), True
            ids = self.prompt_ids(system, document)
        return ids, cut

    def answer_ids(self, pieces: Sequence[str], *, end: bool = True) -> list[int]:
        """Return the ids of an answer that is written in `pieces`, each tokenised by itself; `end` adds end of turn."""
        ids = [token for piece in pieces for token in self._continuation_ids(piece)]
        return [*ids, self.end_of_turn_id] if end else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of answer ids, without special tokens."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def neutralize(self, text: str) -> str:
        """Return `text` with every control token broken by a space, and half surrogates, which no token has, as ?.

        Also those are broken that only a tokenizer's normaliser would make of invisible or fullwidth characters. Text
        without any is returned as it is, character for character.
        """
        return self._control_words.broken_up(text.encode("utf-8", "replace").decode("utf-8"))

    @cached_property
    def end_of_turn_id(self) -> int:
        """The token that ends an assistant's turn in this template (the tokenizer's eos where there is none).

        Raises: ModelError: there is neither.
        """
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}]
        after = self._apply(turns, add_generation_prompt=False).partition(PROBE)[2]
        special = {self.tokenizer.convert_tokens_to_ids(word) for word in self._special_tokens}
        found = next((token for token in self._encode(after) if token in special), self.tokenizer.eos_token_id)
        if found is None:
            raise ModelError(
                "this tokenizer has no token that ends an answer",
                where=str(self.tokenizer.name_or_path or "tokenizer"),
                hint="Set eos_token in tokenizer_config.json.",
            )
        return int(found)

    @cached_property
    def _takes_system_turn(self) -> bool:
        turns = [{"role": "system", "content": PROBE}, {"role": "user", "content": "x"}]
        try:
            return PROBE in self._apply(turns, add_generation_prompt=True)
        except TemplateError:
            return False

    @cached_property
    def _adds_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and self.tokenizer("x")["input_ids"][:1] == [bos]

    @cached_property
    def _special_tokens(self) -> set[str]:
        """Tokens that mean something by themselves; others that were added (runs of spaces, HTML tags) are text.

        Some models do not mark all of theirs (`<|fim_prefix|>`). llama.cpp's converter goes by their looks then, and
        so do we, or a document that has one would be another prompt there.
        """
        added = self.tokenizer.added_tokens_decoder.values()
        special = {str(token) for token in added if token.special or LOOKS_SPECIAL.fullmatch(str(token))}
        return special | set(self.tokenizer.all_special_tokens)

    @cached_property
    def _control_words(self) -> ControlWords:
        return ControlWords(self._special_tokens | self._markers, any_case=self._is_lowercasing)

    @cached_property
    def _is_lowercasing(self) -> bool:
        """Whether the tokenizer would read <|IM_END|> as it reads <|im_end|>."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer if self.tokenizer.is_fast else None
        return normalizer is not None and "probe" in normalizer.normalize_str("PROBE")

    @cached_property
    def _markers(self) -> set[str]:
        """What the template writes around turns, for templates that mark them in plain text."""
        turns = [{"role": "user", "content": PROBE}, {"role": "assistant", "content": PROBE}]
        if self._takes_system_turn:
            turns.insert(0, {"role": "system", "content": PROBE})
        try:
            return set(MARKER.findall(self._apply(turns, add_generation_prompt=False)))
        except TemplateError:
            return set()

    @cached_property
    def _anchor(self) -> str:
        """The end of every prompt: an answer continues from here."""
        return self.render("s", "d")[-16:]

    def _shortened(self, document: str, tokens: int) -> str:
        """Return `document` without about its last `tokens` tokens, at least one character shorter."""
        if not self.tokenizer.is_fast:  # these know no offsets
            return document[: max(len(document) - tokens, 0)]
        offsets = self.tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        room = max(len(offsets) - tokens, 0)
        return document[: offsets[room][0]].rstrip() if room < len(offsets) else document[:-1]

    def _continuation_ids(self, text: str) -> list[int]:
        """Tokenise what continues a text: no space is put before it, as some tokenizers do at a beginning."""
        text = self.neutralize(text)
        anchor = self._encode(self._anchor)
        whole = self._encode(self._anchor + text)
        return whole[len(anchor) :] if whole[: len(anchor)] == anchor else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _apply(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
        )
