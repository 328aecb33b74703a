"""The embedded engine: a model in this process, with shared-prefix scoring and as many adapters as memory holds.

Every engine on one `SharedBase` keeps what its own adapter made of its own instruction, so going from one to another
costs a switch of adapters and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple

from tuneloop.errors import ModelError
from tuneloop.infer.answering import LabelScoring, Mode
from tuneloop.infer.continuation import read_text
from tuneloop.infer.engines.limits import require_room
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.engines.sampling import TokenChooser
from tuneloop.infer.engines.text_pieces import pieces
from tuneloop.infer.predict import Predictor
from tuneloop.models.adapters import SharedBase
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Message, Prediction


class Limits(NamedTuple):
    """What bounds an answer: `max_tokens` of prompt and answer, `max_new_tokens` of a predicted answer,
    `tokens_per_row` computed at once, and the probability `threshold` under which it is routed to review;
    and what a label's probability is (`label_scoring`).
    """

    max_tokens: int = 4096
    max_new_tokens: int = 128
    tokens_per_row: int = 2048
    threshold: float = 0.85
    label_scoring: LabelScoring = "constrained"


class TransformersEngine:
    """A task answered by a base model with one of its adapters (None: without any)."""

    name = "transformers"

    def __init__(self, base: SharedBase, adapter: str | None, task: TaskPrompt, limits: Limits | None = None) -> None:
        self.base, self.adapter, self.limits = base, adapter, limits or Limits()
        with base.using(adapter) as loaded:
            self._predictor: Predictor | None = Predictor(loaded, task, **self.limits._asdict())
        self._task = task

    def __repr__(self) -> str:
        return f"TransformersEngine(adapter={self.adapter!r})"

    @property
    def task(self) -> TaskPrompt:
        return self._task

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order. Raises: ModelError: the prompt alone leaves no room for a document."""
        predictor = self._open()
        with self.base.using(self.adapter):
            return predictor.predict(texts, mode, advance)

    def rendered_prompt(self, text: str) -> str:
        answering = self._open().answering
        return self.base.loaded.chat.render(answering.system, self._task.user_text(text))

    def prompt_ids(self, text: str) -> list[int]:
        return self._open().answering.prompt_ids(text)

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Generate after a conversation.

        Raises: UsageError: the chat template refuses it, or it is too long.
        """
        return self._generate(self.base.loaded.chat.conversation_ids(messages), sampling, is_cancelled)

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Generate after a plain prompt. Raises: UsageError: it is empty or too long."""
        return self._generate(self.base.loaded.chat.text_ids(prompt), sampling, is_cancelled)

    def count_tokens(self, asked: Sequence[Message] | str) -> int:
        """Return how many tokens a rendered conversation, or a plain prompt, has."""
        chat = self.base.loaded.chat
        return len(chat.text_ids(asked) if isinstance(asked, str) else chat.conversation_ids(asked))

    def is_alive(self) -> bool:
        return self._predictor is not None

    def close(self) -> None:
        """Let go of the adapter and of what it made of the instruction; the base model stays with its other engines."""
        if self._predictor is not None:
            self._predictor = None
            if self.adapter is not None:
                self.base.remove(self.adapter)

    def _generate(self, ids: list[int], sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        self._open()
        require_room(ids, self.limits.max_tokens)
        chat = self.base.loaded.chat
        chooser = TokenChooser(sampling)
        end_ids = frozenset({chat.end_of_turn_id, chat.tokenizer.eos_token_id} - {None})
        tokens = self._tokens(ids, chooser, min(len(ids) + sampling.max_new_tokens, self.limits.max_tokens))
        return pieces(tokens, chat.decode, end_ids=end_ids, sampling=sampling, is_cancelled=is_cancelled)

    def _tokens(self, ids: list[int], chooser: TokenChooser, longest: int) -> Generator[int]:
        """Compute token after token; between two of them other engines may use the base model."""
        predictor = self._open()
        with self.base.using(self.adapter) as loaded:
            text = read_text(loaded.model, ids, longest, predictor.session)
            token = chooser.choose(text.logits)
        yield token
        for _ in range(longest - len(ids) - 1):
            self._open()
            with self.base.using(self.adapter):
                text.add(token)
                token = chooser.choose(text.logits)
            yield token

    def _open(self) -> Predictor:
        if self._predictor is None:
            raise ModelError("this engine is closed", where=repr(self), hint="Open the model again.")
        return self._predictor
