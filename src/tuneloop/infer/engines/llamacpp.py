"""llama.cpp in this process: a GGUF file answers a task with its own chat template and tokenizer.

The instruction is read once, documents in groups after it, and the label set as trees, with the exact scores and the
certified pruning of all engines.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from tuneloop.errors import ModelError
from tuneloop.infer.answering import Answer, Answering, Generated, LabelScoring, Mode, ScoredSet
from tuneloop.infer.engines.gguf_documents import LABEL_TOKENS, GgufDocuments, GgufReader
from tuneloop.infer.engines.gguf_model import GgufModel
from tuneloop.infer.engines.gguf_tokenizer import GgufTokenizer
from tuneloop.infer.engines.limits import require_room
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.engines.sampling import TokenChooser
from tuneloop.infer.engines.scoring import walk_labels
from tuneloop.infer.engines.text_pieces import pieces
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Message, Prediction


def open_gguf(
    path: Path,
    task: TaskPrompt,
    *,
    max_tokens: int = 4096,
    max_new_tokens: int = 128,
    threshold: float = 0.85,
    label_scoring: LabelScoring = "constrained",
    threads: int | None = None,
) -> LlamaCppEngine:
    """Open a GGUF file for a task.

    Args: as in `infer.predict.Predictor`; threads: None takes one for each core that may be used.
    Raises: ModelError: llama.cpp is not installed, or cannot open the file.
    """
    # One longest document beside one longest streamed text, and the label tree of a pass.
    model = GgufModel(path, room=2 * (max_tokens + LABEL_TOKENS), threads=threads)
    return LlamaCppEngine(
        model,
        task,
        max_tokens=max_tokens,
        max_new_tokens=max_new_tokens,
        threshold=threshold,
        label_scoring=label_scoring,
    )


class LlamaCppEngine:
    """A task answered by an open GGUF file."""

    name = "llamacpp"

    def __init__(
        self,
        model: GgufModel,
        task: TaskPrompt,
        *,
        max_tokens: int,
        max_new_tokens: int,
        threshold: float,
        label_scoring: LabelScoring = "constrained",
    ) -> None:
        tokenizer: Any = GgufTokenizer(model)
        self._model, self._chat, self._task = model, ChatFormat(tokenizer), task
        self._answering = Answering(
            task,
            self._chat,
            max_tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            threshold=threshold,
            label_scoring=label_scoring,
        )
        self._reader = GgufReader(model)

    def __repr__(self) -> str:
        return f"LlamaCppEngine({str(self._model.path)!r})"

    @property
    def task(self) -> TaskPrompt:
        return self._task

    @property
    def chat_template(self) -> str | None:
        """The chat template in the file."""
        return self._model.chat_template

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order. Raises: ModelError: the prompt alone leaves no room for a document."""
        self._require_open()
        prompts = [self._answering.prompt_ids(text) for text in texts]
        shared = self._answering.shared(prompts) if prompts else 0
        predictions: list[Prediction] = []
        generates = mode == "free" or (self._task.has_entities and mode == "closed")
        room = self._answering.max_new_tokens if generates else 0
        for group in self._reader.groups(shared, prompts, room):
            rests = [prompts[number][shared:] for number in group]
            with self._reader.reading(prompts[0][:shared], rests) as documents:
                answers = self._answers(documents, [texts[number] for number in group], mode)
            predictions += map(self._answering.judge, answers)
            if advance is not None:
                advance(len(group))
        return predictions

    def rendered_prompt(self, text: str) -> str:
        return self._chat.render(self._answering.system, self._task.user_text(text))

    def prompt_ids(self, text: str) -> list[int]:
        return self._answering.prompt_ids(text)

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Generate after a conversation.

        Raises: UsageError: the chat template refuses it, or it is too long.
        """
        return self._generate(self._chat.conversation_ids(messages), sampling, is_cancelled)

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Generate after a plain prompt. Raises: UsageError: it is empty or too long."""
        return self._generate(self._chat.text_ids(prompt), sampling, is_cancelled)

    def is_alive(self) -> bool:
        return self._model.is_open

    def close(self) -> None:
        """Free the model's memory, when nothing is being computed any more."""
        self._model.close()

    def _answers(self, documents: GgufDocuments, texts: Sequence[str], mode: Mode) -> list[Answer]:
        answering, tree = self._answering, self._answering.tree
        limits = {"end_id": self._chat.end_of_turn_id, "max_new_tokens": answering.max_new_tokens}
        if mode == "free" or tree is None:
            generated = documents.generate(None, **limits)
            return [answering.read(one, text) for one, text in zip(generated, texts, strict=True)]
        log_scores = walk_labels(documents.answer, len(texts), tree, tokens_per_round=LABEL_TOKENS)
        scored = [ScoredSet.of(row) for row in log_scores]
        rests: Sequence[Generated | None] = [None] * len(texts)
        if self._task.has_entities and mode == "closed":
            rests = documents.generate([answering.candidates[one.best] for one in scored], **limits)
        return [answering.complete(*parts) for parts in zip(scored, rests, texts, strict=True)]

    def _generate(self, ids: list[int], sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        self._require_open()
        require_room(ids, self._answering.max_tokens)
        end_ids = self._model.end_ids | {self._chat.end_of_turn_id}
        longest = min(sampling.max_new_tokens, self._answering.max_tokens - len(ids))
        tokens = self._tokens(ids, TokenChooser(sampling), longest)
        return pieces(tokens, self._chat.decode, end_ids=end_ids, sampling=sampling, is_cancelled=is_cancelled)

    def _tokens(self, ids: Sequence[int], chooser: TokenChooser, count: int) -> Generator[int]:
        with self._reader.continuing(ids) as text:
            token = chooser.choose(text.logits)
            yield token
            for _ in range(count - 1):
                text.add(token)
                token = chooser.choose(text.logits)
                yield token

    def _require_open(self) -> None:
        if not self._model.is_open:
            raise ModelError("this engine is closed", where=repr(self), hint="Open the model again.")
