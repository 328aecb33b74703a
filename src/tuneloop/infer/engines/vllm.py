"""vLLM as an engine: the same prompts, the same exact label scores and the same judgement as in this process.

Prompts go to vLLM as token ids. Those are ours where vLLM's own chat template and tokenizer make the same of two
probes, and else what vLLM makes of the conversation: a server with another template answers as its users would see it,
and parity finds the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from tuneloop.errors import ModelError, UsageError
from tuneloop.infer.answering import Answer, Answering, Generated, LabelScoring, Mode, ScoredSet
from tuneloop.infer.engines.api_stream import StreamRequest, body_of, stream_pieces
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.engines.scoring import score_labels
from tuneloop.infer.engines.vllm_server import PLAIN, VllmServer
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Message, Prediction

PROBES = ("a document", "Ein längeres Dokument, § 9:\n\n  «naïve» 文書 🙂 <tag> &amp;\t9.")
CHUNK = 4  # documents asked about together, in times of the sequences under way


class VllmEngine:
    """A task answered by a vLLM server.

    Args: chat: the tokenizer and chat template of the model that was evaluated; max_tokens: of prompt and answer;
        is_guided: closed answers are one greedy generation held to the label set, without scores of the labels.
    Raises: UsageError: the server does not serve this model; NetworkError: it cannot be reached.
    """

    name = "vllm"

    def __init__(
        self,
        server: VllmServer,
        task: TaskPrompt,
        chat: ChatFormat,
        *,
        max_tokens: int = 4096,
        max_new_tokens: int = 128,
        threshold: float = 0.85,
        label_scoring: LabelScoring = "constrained",
        is_guided: bool = False,
    ) -> None:
        self.server, self.is_guided, self._chat, self._task = server, is_guided, chat, task
        served = server.models()
        if server.model not in served:
            hint = f"It serves {', '.join(served) or 'nothing'}: name one of these as URL#MODEL."
            raise UsageError(f"it does not serve {server.model!r}", where=server.server.base_url, hint=hint)
        self.writes_alike = all(self._server_ids(probe) == chat.prompt_ids(task.system(), probe) for probe in PROBES)
        self._answering = Answering(
            task,
            chat if self.writes_alike else _ServedFormat(server, chat),
            max_tokens=max_tokens,
            max_new_tokens=max_new_tokens,
            threshold=threshold,
            label_scoring=label_scoring,
        )

    def __repr__(self) -> str:
        return f"VllmEngine({self.server.model!r} at {self.server.server.base_url})"

    @property
    def task(self) -> TaskPrompt:
        return self._task

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order.

        Raises: ModelError: the prompt alone leaves no room for a document, or vLLM refuses a request or has ended;
            NetworkError: it does not answer.
        """
        predictions: list[Prediction] = []
        size = CHUNK * self.server.concurrency
        for chunk in (texts[start : start + size] for start in range(0, len(texts), size)):
            prompts = [self._answering.prompt_ids(text) for text in chunk]
            predictions += [self._answering.judge(answer) for answer in self._answers(prompts, chunk, mode)]
            if advance is not None:
                advance(len(chunk))
        return predictions

    def rendered_prompt(self, text: str) -> str:
        """Return the prompt as vLLM spells the tokens that it makes of it."""
        return self.server.text_of(self.prompt_ids(text))

    def prompt_ids(self, text: str) -> list[int]:
        return self._server_ids(self._task.user_text(text))

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Generate after a conversation. Raises: UsageError: it is too long, or the template refuses it."""
        body = {"messages": self._chat.conversation_turns(messages)}
        return self._stream("/v1/chat/completions", body, sampling, is_cancelled)

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Generate after a plain prompt. Raises: UsageError: it is refused (empty, or too long)."""
        return self._stream("/v1/completions", {"prompt": self._chat.text_ids(prompt)}, sampling, is_cancelled)

    def is_alive(self) -> bool:
        return self.server.server.is_alive()

    def close(self) -> None:
        """Let go of the connections; a server that was started for this engine ends."""
        self.server.close()

    def _answers(self, prompts: list[list[int]], texts: Sequence[str], mode: Mode) -> list[Answer]:
        tree = self._answering.tree
        if mode == "free" or tree is None:
            return [self._answering.read(one, text) for one, text in zip(self._generate(prompts), texts, strict=True)]
        if self.is_guided:
            return self._guided(prompts, texts, mode)
        scored = [ScoredSet.of(scores) for scores in score_labels(self.server, prompts, tree)]
        rests = self._rests(prompts, [one.best for one in scored], mode)
        complete = self._answering.complete
        return [complete(one, rest, text) for one, rest, text in zip(scored, rests, texts, strict=True)]

    def _guided(self, prompts: list[list[int]], texts: Sequence[str], mode: Mode) -> list[Answer]:
        """Answer with one greedy generation each; the probability is that of the label's own tokens."""
        heads = [self._task.label_head(label) for label in self._task.labels]
        longest = max(len(head.encode()) for head in heads) + 1  # a grammar may be followed byte by byte
        written = self.server.generate(prompts, end_id=self._chat.end_of_turn_id, max_new_tokens=longest, choices=heads)
        said = [self._chat.decode(one.ids) for one in written]
        if not set(said) <= set(heads):
            found = next(text for text in said if text not in heads)
            hint = "This server does not enforce structured_outputs; set serve.vllm.scoring: exact."
            raise ModelError(f"a guided answer is outside the label set: {found!r}", where=repr(self), hint=hint)
        chosen = [heads.index(text) for text in said]
        rests = self._rests(prompts, chosen, mode)
        answers = []
        for one, label, rest, text in zip(written, chosen, rests, texts, strict=True):
            scored = ScoredSet((), label, math.exp(sum(one.log_probabilities[: len(one.ids)])))
            answers.append(replace(self._answering.complete(scored, rest, text), label_scores=None))
        return answers

    def _rests(self, prompts: list[list[int]], chosen: Sequence[int], mode: Mode) -> Sequence[Generated | None]:
        """Generate what follows the chosen labels, where anything does."""
        if not self._task.has_entities or mode != "closed":
            return [None] * len(prompts)
        candidates = self._answering.candidates
        return self._generate([[*prompt, *candidates[one]] for prompt, one in zip(prompts, chosen, strict=True)])

    def _generate(self, prompts: list[list[int]]) -> list[Generated]:
        longest = self._answering.max_new_tokens
        return self.server.generate(prompts, end_id=self._chat.end_of_turn_id, max_new_tokens=longest)

    def _server_ids(self, document: str) -> list[int]:
        return self.server.prompt_ids(self._chat.turns(self._task.system(), document))

    def _stream(
        self, path: str, body: Mapping[str, object], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        server = self.server
        ending = {"stop_token_ids": [self._chat.end_of_turn_id], "return_token_ids": True}
        request = StreamRequest(
            url=server.server.base_url + path,
            headers=server.headers(),
            body={"model": server.model, **PLAIN, **body_of(sampling), **ending, **body},
            refused=server.refused_prompt,
            lost=server.lost,
            trust_env=server.trust_env,
        )
        return stream_pieces(request, is_cancelled)


class _ServedFormat:
    """How a server writes prompts that writes them differently; answers are tokenised as the model has learnt them."""

    def __init__(self, server: VllmServer, chat: ChatFormat) -> None:
        self._server, self._chat = server, chat

    @property
    def end_of_turn_id(self) -> int:
        return self._chat.end_of_turn_id

    def prompt_ids(self, system: str, document: str) -> list[int]:
        return self._server.prompt_ids(self._chat.turns(system, document))

    def fitted_prompt_ids(self, system: str, document: str, limit: int) -> tuple[list[int], bool]:
        """Return at most `limit` ids and whether the document's end was cut for that (see `ChatFormat`)."""
        ids, is_cut = self.prompt_ids(system, document), False
        while len(ids) > limit and document:
            document, is_cut = document[: len(document) * limit // (len(ids) + 1)], True
            ids = self.prompt_ids(system, document)
        return ids, is_cut

    def answer_ids(self, pieces: Sequence[str], *, end: bool = True) -> list[int]:
        return self._chat.answer_ids(pieces, end=end)

    def decode(self, ids: Sequence[int]) -> str:
        return self._chat.decode(ids)
