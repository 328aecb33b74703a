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

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
PROBE = "tuneloop probe"


class ChatFormat:
    """One tokenizer's way of writing prompts and answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template is None:
            tokenizer.chat_template = PLAIN_TEMPLATE

    def render(self, system: str, document: str) -> str:
        """Return the prompt text up to the point where the assistant speaks.

        Control tokens of the template inside `document` are broken up, so a document cannot end its own turn.
        """
        document = self.neutralize(document)
        if self._takes_system_turn:
            turns = [{"role": "system", "content": system}, {"role": "user", "content": document}]
        else:
            turns = [{"role": "user", "content": f"{system}\n\n{document}"}]
        return self._apply(turns, add_generation_prompt=True)

    def prompt_ids(self, system: str, document: str) -> list[int]:
        """Return the token ids of the rendered prompt."""
        return self._encode(self.render(system, document))

    def fitted_prompt_ids(self, system: str, document: str, limit: int) -> tuple[list[int], bool]:
        """Return at most `limit` ids of the rendered prompt and whether the document's end had to be cut for that."""
        ids = self.prompt_ids(system, document)
        cut = False
        while len(ids) > limit and document:
            offsets = self.tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            room = max(len(offsets) - (len(ids) - limit), 0)
            document, cut = document[: offsets[room][0]].rstrip() if room < len(offsets) else document[:-1], True
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

    def neutralize(self, document: str) -> str:
        """Return `document` with every control token of this tokenizer broken by a space."""
        return self._control_pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", document)

    @cached_property
    def end_of_turn_id(self) -> int:
        """The token that ends an assistant's turn in this template (the tokenizer's eos where there is none)."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}]
        after = self._apply(turns, add_generation_prompt=False).partition(PROBE)[2]
        special = set(self.tokenizer.all_special_ids)
        return next((token for token in self._encode(after) if token in special), int(self.tokenizer.eos_token_id))

    @cached_property
    def _takes_system_turn(self) -> bool:
        turns = [{"role": "system", "content": PROBE}, {"role": "user", "content": "x"}]
        try:
            return PROBE in self._apply(turns, add_generation_prompt=True)
        except TemplateError:
            return False

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        added = [str(token) for token in self.tokenizer.get_added_vocab()]
        words = sorted({word for word in added + list(self.tokenizer.all_special_tokens) if len(word) > 1}, key=len)
        return re.compile("|".join(map(re.escape, reversed(words))) or r"(?!)")

    @cached_property
    def _anchor(self) -> str:
        """The end of every prompt: an answer continues from here."""
        return self.render("s", "d")[-16:]

    def _continuation_ids(self, text: str) -> list[int]:
        """Tokenise what continues a text: no space is put before it, as some tokenizers do at a beginning."""
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
