"""Predictions for documents: `closed` answers come from the label set by construction, `free` ones are what the model
says when it may say anything. `labels` are closed answers without the entities, which take longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from tuneloop.infer.answering import Answer, Answering, Generated, LabelScoring, ScoredSet
from tuneloop.infer.answering import Mode as Mode
from tuneloop.infer.engines.scoring import score_labels as score_by_questions
from tuneloop.infer.generate import LabelPath, generate, generate_after_labels
from tuneloop.infer.labels import score_labels
from tuneloop.infer.plain import PlainNextTokens, generate_one, score_candidates
from tuneloop.infer.session import PrefixSession, ReadDocuments
from tuneloop.infer.tree import LabelTree
from tuneloop.models import prefix
from tuneloop.models.load import LoadedModel
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Example, Prediction

TOKENS_HELD = 16_384  # of documents, answers and label trees of one row: keys and values of a 7B model take 2 GB


class Predictor:
    """A loaded model that answers one task.

    `tokens_per_row` bounds the tokens computed at once (memory), `threshold` the probability under which an answer is
    routed to review. What the model makes of the instruction is kept from call to call, so its weights must not change
    in between.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: TaskPrompt,
        *,
        max_tokens: int = 4096,
        max_new_tokens: int = 128,
        tokens_per_row: int = 2048,
        threshold: float = 0.85,
        label_scoring: LabelScoring = "constrained",
    ) -> None:
        self.loaded, self.task, self.tokens_per_row = loaded, task, tokens_per_row
        self.answering = Answering(
            task,
            loaded.chat,
            max_tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            threshold=threshold,
            label_scoring=label_scoring,
        )
        self._session: PrefixSession | None = None

    @property
    def session(self) -> PrefixSession | None:
        """The model with the instruction read, as far as documents have been answered since then."""
        return self._session

    def predict(
        self,
        texts: Sequence[str],
        mode: Mode = "closed",
        advance: Advance | None = None,
        shots: Sequence[Sequence[Example]] | None = None,
    ) -> list[Prediction]:
        """Answer every document, in order; `advance` is told how many are newly done.

        Args: shots: for each document the examples shown with it, nearest first (see `TaskPrompt.user_text`).
        Raises: ModelError: the prompt alone leaves no room for a document.
        """
        beside = [()] * len(texts) if shots is None else shots
        prompts = [self.answering.prompt_ids(text, near) for text, near in zip(texts, beside, strict=True)]
        predictions: dict[int, Prediction] = {}
        for number, answer in self._answers(prompts, texts, mode):
            predictions[number] = self.answering.judge(answer)
            if advance is not None:
                advance(1)
        return [predictions[number] for number in range(len(texts))]

    def _answers(self, prompts: list[list[int]], texts: Sequence[str], mode: Mode) -> Iterator[tuple[int, Answer]]:
        longest = max(map(len, prompts), default=0) + self.answering.max_new_tokens
        model = self.loaded.model
        if not prompts:
            return
        if prefix.obstacle(model, longest) is None:
            prefix.install(model)
            yield from self._shared(prompts, texts, mode)
        else:
            prefix.uninstall(model)
            for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
                yield number, self._plain(prompt, text, mode)

    def _shared(self, prompts: list[list[int]], texts: Sequence[str], mode: Mode) -> Iterator[tuple[int, Answer]]:
        shared = self.answering.shared(prompts)
        if self._session is None or self._session.prefix_ids != tuple(prompts[0][:shared]):
            self._session = PrefixSession(self.loaded.model, prompts[0][:shared])
        rests = [prompt[shared:] for prompt in prompts]
        tree, max_new_tokens = self.answering.tree if mode != "free" else None, self.answering.max_new_tokens
        appended = max_new_tokens + (len(tree.tokens) if tree else 0)
        at_once = max(TOKENS_HELD // (max(map(len, rests)) + appended), 1)
        for documents in self._session.read(rests, self.tokens_per_row, at_once):
            row_texts = [texts[member] for member in documents.row.members]
            if tree is not None:
                answers = self._closed(self._session, documents, row_texts, tree, mode)
            else:
                generated = generate(self._session, documents, end_id=self._end_id, max_new_tokens=max_new_tokens)
                answers = [self.answering.read(one, text) for one, text in zip(generated, row_texts, strict=True)]
            yield from zip(documents.row.members, answers, strict=True)

    def _closed(
        self, session: PrefixSession, documents: ReadDocuments, texts: list[str], tree: LabelTree, mode: Mode
    ) -> list[Answer]:
        scored = score_labels(session, documents, tree)
        chosen = scored.log_scores.argmax(-1).tolist()
        rests: Iterable[Generated | None] = [None] * len(texts)
        if self.task.has_entities and mode == "closed":
            rests = generate_after_labels(
                session, documents, scored, self._label_paths(tree, chosen),
                end_id=self._end_id, max_new_tokens=self.answering.max_new_tokens,
            )  # fmt: skip
        return [
            self._complete(scores, rest, text)
            for scores, rest, text in zip(scored.log_scores, rests, texts, strict=True)
        ]

    def _plain(self, prompt: list[int], text: str, mode: Mode) -> Answer:
        model, settings = self.loaded.model, {"end_id": self._end_id, "max_new_tokens": self.answering.max_new_tokens}
        pad_id = self.loaded.chat.tokenizer.pad_token_id or self._end_id
        if mode == "free" or not self.task.has_label:
            return self.answering.read(generate_one(model, prompt, pad_id=pad_id, **settings), text)
        scores = self._plain_scores(prompt)
        rest = None
        if self.task.has_entities and mode == "closed":
            chosen = self.answering.candidates[int(scores.argmax())]
            rest = generate_one(model, [*prompt, *chosen], pad_id=pad_id, **settings)
        return self._complete(scores, rest, text)

    def _plain_scores(self, prompt: list[int]) -> Tensor:
        tree = self.answering.tree
        if tree is not None and tree.is_constrained:
            return torch.from_numpy(score_by_questions(PlainNextTokens(self.loaded.model), [prompt], tree)[0])
        return score_candidates(self.loaded.model, prompt, self.answering.candidates)

    def _label_paths(self, tree: LabelTree, chosen: Sequence[int]) -> list[LabelPath]:
        """Return where the chosen labels are in the tree, and which of their ids come after that."""
        ids = self.answering.candidates
        return [LabelPath(tree.paths[k], tuple(ids[k][len(tree.paths[k]) :])) for k in chosen]

    def _complete(self, log_scores: Tensor, rest: Generated | None, document: str) -> Answer:
        """Make an answer of the label set's log-scores (K,) and, where there are entities, the generated rest."""
        probability = float(log_scores.softmax(-1).max())
        scored = ScoredSet(tuple(log_scores.tolist()), int(log_scores.argmax()), probability)
        return self.answering.complete(scored, rest, document)

    @property
    def _end_id(self) -> int:
        return self.loaded.chat.end_of_turn_id
