"""What every engine does with a task besides computing: write its prompts, read what came out, and judge it.

`Answering` joins a task with one model's tokenizer and chat template. An engine gives it log-scores of the label set or
generated ids, and gets predictions; so all engines read and judge alike. Knows nothing about how models compute.

Shapes: K labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tuneloop.config.schema import LabelScoring as LabelScoring
from tuneloop.errors import ModelError
from tuneloop.infer.tree import LabelTree
from tuneloop.models.beginnings import common_prefix
from tuneloop.models.prompt import ParsedAnswer, TaskPrompt
from tuneloop.records import Example, Prediction, ReviewReason

Mode = Literal["closed", "free", "labels"]
PROBES = ("a document", "9 documents")  # two documents with nothing in common, to find where the prompt's prefix ends
SCORE_DIGITS = 5  # kept of a label's log-score: what forward passes in float32 agree on


class AnswerFormat(Protocol):
    """How one model's tokenizer and chat template write prompts and answers (`models.chat.ChatFormat` is one)."""

    @property
    def end_of_turn_id(self) -> int: ...

    def prompt_ids(self, system: str, document: str) -> list[int]: ...

    def fitted_prompt_ids(self, system: str, document: str, limit: int) -> tuple[list[int], bool]: ...

    def answer_ids(self, pieces: Sequence[str], *, end: bool = True) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Generated:
    """One generated answer: its ids without the end token, and the log-probability of each (end token included)."""

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    is_finished: bool


@dataclass(frozen=True)
class ScoredSet:
    """The label set after one document: log-scores (K,), the index of the best, and its share of the set."""

    log_scores: tuple[float, ...]
    best: int
    probability: float

    @classmethod
    def of(cls, log_scores: NDArray[np.float32]) -> ScoredSet:
        """Return the set with these log-scores (K,)."""
        best = int(log_scores.argmax())
        shares = np.exp(log_scores.astype(np.float64) - float(log_scores[best]))
        return cls(tuple(log_scores.tolist()), best, 1.0 / float(shares.sum()))


@dataclass(frozen=True)
class Answer:
    """What came out of a model for one document, before it is judged against the task."""

    parsed: ParsedAnswer
    probability: float
    text: str
    label_scores: tuple[float, ...] | None = None


class Answering:
    """One task in the words and tokens of one model.

    Args: max_tokens: of prompt and answer together; max_new_tokens: of the answer; threshold: the probability under
        which an answer is routed to review; label_scoring: what a label's probability is (see `ModelConfig`).
    Raises: ModelError: this tokenizer cannot tell two labels apart.
    """

    def __init__(
        self,
        task: TaskPrompt,
        chat: AnswerFormat,
        *,
        max_tokens: int,
        max_new_tokens: int,
        threshold: float,
        label_scoring: LabelScoring = "constrained",
    ) -> None:
        self.task, self.chat = task, chat
        self.max_tokens, self.max_new_tokens, self.threshold = max_tokens, max_new_tokens, threshold
        self.system = task.system()
        self.candidates = [self._candidate(label) for label in task.labels] if task.has_label else []
        self.tree = self._build_tree(label_scoring) if task.has_label else None

    def prompt_ids(self, text: str, shots: Sequence[Example] = ()) -> list[int]:
        """Return the prompt's ids; where they are too many, the farthest shots go before the document's end does.

        Raises: ModelError: the prompt alone leaves no room for a document.
        """
        limit = self.max_tokens - self.max_new_tokens
        ids, is_cut = self.chat.fitted_prompt_ids(self.system, self.task.user_text(text, shots), limit)
        while is_cut and shots:
            shots = shots[:-1]
            ids, is_cut = self.chat.fitted_prompt_ids(self.system, self.task.user_text(text, shots), limit)
        if len(ids) > limit:
            raise ModelError(
                f"the prompt without any document has {len(ids)} tokens; {limit} are available",
                where="task.instruction",
                hint="Shorten the instruction, show fewer shots, or raise model.max_tokens.",
            )
        return ids

    def shared(self, prompts: Sequence[Sequence[int]]) -> int:
        """Return how many first tokens of these prompts every prompt of the task begins with."""
        return common_prefix([*prompts, *self._probes])

    @cached_property
    def _probes(self) -> list[list[int]]:
        return [self.chat.prompt_ids(self.system, probe) for probe in PROBES]

    def complete(self, scored: ScoredSet, rest: Generated | None, document: str) -> Answer:
        """Make an answer of the scored label set and, where there are entities, what was generated after the label."""
        name = self.task.labels[scored.best]
        scores = tuple(round(score, SCORE_DIGITS) for score in scored.log_scores)
        if rest is None:
            return Answer(ParsedAnswer(name, None), scored.probability, name, scores)
        text = self.task.label_head(name) + self.chat.decode(rest.ids)
        parsed = self.task.parse(text, document)
        if not parsed.well_formed:
            parsed = ParsedAnswer(name, (), well_formed=False)
        return Answer(parsed, scored.probability, text, scores)

    def read(self, generated: Generated, document: str) -> Answer:
        """Read an answer that the model was free to give."""
        text = self.chat.decode(generated.ids)
        parsed = self.task.parse(text, document)
        counted = self._label_tokens(generated.ids, parsed) if self.task.kind == "classify+extract" else None
        return Answer(parsed, math.exp(sum(generated.log_probabilities[:counted])), text)

    def judge(self, answer: Answer) -> Prediction:
        """Return the prediction that an answer is: in the label set or invented, accepted or for review, and why."""
        label = answer.parsed.label
        invented = self.task.has_label and label not in self.task.labels
        reason: ReviewReason = "" if answer.probability >= self.threshold else "unsure"
        if not answer.parsed.well_formed or invented:
            reason = "invented" if answer.parsed.well_formed else "malformed"
        return Prediction(
            label=label,
            probability=min(max(answer.probability, 0.0), 1.0),
            entities=answer.parsed.entities,
            rejected_entities=answer.parsed.rejected_entities,
            raw_text=answer.text,
            invented=invented,
            well_formed=answer.parsed.well_formed,
            route="review" if reason else "auto",
            label_scores=answer.label_scores,
            reason=reason,
        )

    def _label_tokens(self, ids: Sequence[int], parsed: ParsedAnswer) -> int:
        """Return how many first tokens of an answer spell its label."""
        head = self.task.label_head(parsed.label or "")
        return next((n for n in range(1, len(ids)) if self.chat.decode(ids[:n]).startswith(head)), len(ids))

    def _candidate(self, label: str) -> list[int]:
        return self.chat.answer_ids([self.task.label_head(label)], end=self.task.kind == "classify")

    def _build_tree(self, scoring: LabelScoring) -> LabelTree:
        build = LabelTree.of_beginnings if scoring == "constrained" else LabelTree.build
        try:
            return build(self.candidates)
        except ValueError as error:
            raise ModelError(
                f"this model's tokenizer cannot tell the labels apart: {error}",
                where="task.labels",
                hint="Rename the labels that differ only in spaces, case or unusual characters.",
            ) from error
