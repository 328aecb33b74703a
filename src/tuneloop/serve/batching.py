"""Dynamic batching: one worker thread per engine takes what waits, as much as fits, and never waits for more.

Engines that share weights share a `Lane`, its thread and its queue. The queue is bounded; what would not be answered
within its deadline at the measured speed is refused when it comes, and not when it is too late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from tuneloop.errors import UsageError
from tuneloop.infer.engines.protocol import Piece
from tuneloop.records import Prediction
from tuneloop.serve.fair_queue import FairQueue
from tuneloop.serve.problems import Problem, not_answered, raised_at, too_late
from tuneloop.serve.speed import Speed
from tuneloop.serve.work import CallWork, DocumentWork, GenerationWork, Kind, Work, settle

logger = logging.getLogger("tuneloop.serve")

USED_SHARE_OF_DEADLINE = 0.8  # the rest is for batches that take longer than measured
OnBatch = Callable[[int, int, float], None]


@dataclass(frozen=True)
class BatchLimits:
    """What is computed together at most, and what may wait."""

    max_batch_documents: int = 64
    max_batch_tokens: int = 8192
    max_waiting_documents: int = 1024
    max_waiting_tokens: int = 524_288


class Lane:
    """A worker thread, what waits for it, and how fast it is."""

    def __init__(self, limits: BatchLimits, on_batch: OnBatch = lambda documents, tokens, seconds: None) -> None:
        self.limits, self._on_batch = limits, on_batch
        self.speeds: dict[Kind, Speed] = {"document": Speed(), "generation": Speed(), "call": Speed()}
        self._queue = FairQueue[Work]()
        self._changed = threading.Condition()
        self._waiting, self._outstanding = Counter[str](), Counter[Kind]()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="tuneloop-lane", daemon=True)
        self._thread.start()

    @property
    def waiting_documents(self) -> int:
        """How many documents and generations wait (those being computed do not)."""
        return self._waiting["works"]

    @property
    def waiting_tokens(self) -> int:
        """How many tokens they have, by estimate."""
        return self._waiting["tokens"]

    def require_room(self, kind: Kind, works: int, tokens: int, deadline_s: float) -> None:
        """Return if so much more may wait and would be answered in time.

        Raises: Problem: 413: it would not even fit into an empty queue; 503, with the time until there is room.
        """
        limits = self.limits
        if works > limits.max_waiting_documents or tokens > limits.max_waiting_tokens:
            raise Problem(413, "request-too-large", "The request is larger than the whole queue. Send it in parts.")
        with self._changed:
            expected_s = sum(self.speeds[other].seconds_for(count) for other, count in self._outstanding.items())
            is_idle = not any(self._outstanding.values())
            is_full = (
                self.waiting_documents + works > limits.max_waiting_documents
                or self.waiting_tokens + tokens > limits.max_waiting_tokens
            )
        if is_full:
            raise Problem(503, "queue-full", "Too much waits already. Try again later.", retry_after_s=expected_s / 2)
        late_s = expected_s + self.speeds[kind].seconds_for(tokens) - USED_SHARE_OF_DEADLINE * deadline_s
        if late_s > 0 and not is_idle:  # an idle engine is always asked: that is how its speed is learnt
            detail = "By measured speed the answer would come after its deadline. Try again later."
            raise Problem(503, "too-busy", detail, retry_after_s=late_s)

    def submit(self, works: Iterable[Work]) -> None:
        """Let works wait for their turn. Raises: Problem: 503: the lane is closed."""
        with self._changed:
            if self._is_closed:
                raise Problem(503, "closing", "The service is stopping.", retry_after_s=1)
            for work in works:
                self._queue.add(work)
                self._count(work, 1)
                self._outstanding[work.kind] += work.tokens
            self._changed.notify()

    def cancel(self, works: Iterable[DocumentWork | GenerationWork]) -> None:
        """Forget what was not computed yet; what is being computed is told."""
        with self._changed:
            for work in works:
                work.is_cancelled = True
                if self._queue.remove(work):
                    self._count(work, -1)
                    self._outstanding[work.kind] -= work.tokens

    def call(self, function: Callable[[], None]) -> None:
        """Run something in the worker's thread, after what it is computing, and wait for it. Raises what it raises."""
        work = CallWork(function)
        self.submit([work])
        work.done.result()

    def wake(self) -> None:
        """Look again whether something can be computed: a model is up again."""
        with self._changed:
            self._changed.notify()

    def close(self) -> None:
        """Refuse what waits, finish what is being computed, and end the thread."""
        with self._changed:
            self._is_closed = True
            left = self._queue.take_all()
            self._waiting.clear()
            self._changed.notify()
        self._refuse(left, Problem(503, "closing", "The service is stopping.", retry_after_s=1))
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)  # an engine that hangs must not keep the process

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._compute(batch)
            except Exception as error:  # whatever goes wrong with one batch, the next one is to be answered
                _note(error, len(batch))
                self._refuse(batch, not_answered())

    def _compute(self, batch: Sequence[Work]) -> None:
        started, first = time.monotonic(), batch[0]
        try:
            if isinstance(first, CallWork):
                _call(first)
            elif isinstance(first, GenerationWork):
                self._generate(first)
            else:
                self._answer([work for work in batch if isinstance(work, DocumentWork)])
        finally:
            tokens, seconds = sum(work.tokens for work in batch), time.monotonic() - started
            with self._changed:
                self._outstanding[first.kind] -= tokens
                self.speeds[first.kind].add(tokens, seconds)
        if first.kind == "document":
            self._on_batch(len(batch), tokens, seconds)

    def _next(self) -> list[Work]:
        """Wait for something to compute, and return it; nothing once the lane is closed."""
        with self._changed:
            while not self._is_closed:
                batch = self._queue.take(self._works_together, self.limits.max_batch_tokens)
                for work in batch:
                    self._count(work, -1)
                if batch:
                    return batch
                self._changed.wait()
        return []

    def _works_together(self, group: Hashable) -> int:
        """Return how many works of a group are computed together; none while the model's engine is down."""
        if not isinstance(group, tuple):  # a call
            return 1
        model, kind = group
        return self._documents_together(group) if kind == "document" else int(model.is_up)

    def _documents_together(self, group: Hashable) -> int:
        """Return how many documents of a group are computed together; none where it is no group of documents."""
        if not isinstance(group, tuple) or group[1] != "document" or not group[0].is_up:
            return 0
        return self.limits.max_batch_documents

    def _answer(self, batch: Sequence[DocumentWork]) -> None:
        now = time.monotonic()
        if late := [work for work in batch if work.deadline < now]:
            self._refuse(late, too_late())
        batch = [work for work in batch if work.deadline >= now and not work.is_cancelled]
        if not batch:
            return
        model = batch[0].model
        try:
            outcomes: Sequence[Prediction | Problem] = model.answer([work.text for work in batch])
        except Exception as error:
            _note(error, len(batch))
            if model.find_down():
                self._put_back(batch)
                return
            outcomes = [_answer_alone(work) for work in batch] if len(batch) > 1 else [not_answered()]
        settle(zip(batch, outcomes, strict=True))

    def _generate(self, work: GenerationWork) -> None:
        if work.is_over():
            work.put(too_late())
            return
        last: Piece | None = None
        try:
            for piece in work.generate(work.model.engine, work.is_over):
                last = piece
                work.put(piece)
                if piece.finish_reason is not None:
                    return
                if work.model.interleaves:
                    self._answer_documents_between()
            work.put(not_answered())
        except UsageError as error:
            work.put(Problem(400, "invalid_prompt", f"This cannot be generated: {error.message}."))
        except Exception as error:
            _note(error, 1)
            if last is None and work.model.find_down():
                self._put_back([work])
            else:
                work.put(not_answered())

    def _answer_documents_between(self) -> None:
        """Answer one batch of waiting documents, if there are any: they must not wait for the end of a long text."""
        if not self._outstanding["document"]:
            return
        with self._changed:
            batch = self._queue.take(self._documents_together, self.limits.max_batch_tokens)
            for work in batch:
                self._count(work, -1)
        if batch:
            self._compute(batch)

    def _put_back(self, works: Sequence[DocumentWork | GenerationWork]) -> None:
        """Let works wait for the engine to be up again, once each."""
        died = Problem(503, "engine-died", "The engine stopped while it answered.", retry_after_s=5)
        self._refuse([work for work in works if work.tries], died)
        with self._changed:
            again = [work for work in works if not work.tries and not work.is_cancelled]
            for work in reversed(again):
                work.tries += 1
                self._queue.add_first(work)
                self._count(work, 1)
                self._outstanding[work.kind] += work.tokens

    def _refuse(self, works: Sequence[Work], problem: Problem) -> None:
        settle([(work, problem) for work in works if isinstance(work, DocumentWork)])
        for work in works:
            if isinstance(work, GenerationWork):
                work.put(problem)
            elif isinstance(work, CallWork) and not work.done.done():
                work.done.set_exception(problem)

    def _count(self, work: Work, sign: int) -> None:
        if work.kind != "call":
            self._waiting["works"] += sign
            self._waiting["tokens"] += sign * work.tokens


def _answer_alone(work: DocumentWork) -> Prediction | Problem:
    try:
        return work.model.answer([work.text])[0]
    except Exception as error:
        _note(error, 1)
        return not_answered()


def _call(work: CallWork) -> None:
    try:
        work.function()
    except Exception as error:
        work.done.set_exception(error)
    else:
        work.done.set_result(None)


def _note(error: Exception, documents: int) -> None:
    logger.error("%s at %s while answering %d documents", type(error).__name__, raised_at(error), documents)
