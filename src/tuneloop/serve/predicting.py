"""`POST /v1/predict`: documents in, answers out, each document by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from tuneloop.records import Entity, Prediction
from tuneloop.serve.entrance import Asked, accepted, disconnected
from tuneloop.serve.log import Served
from tuneloop.serve.models import ServedModel
from tuneloop.serve.problems import CLIENT_GONE, Problem, too_late
from tuneloop.serve.schema import (
    PROBLEM_RESPONSES,
    DocumentAnswer,
    DocumentError,
    FoundEntity,
    Occurrence,
    PredictRequest,
    PredictResponse,
)
from tuneloop.serve.scopes import needs
from tuneloop.serve.service import Service
from tuneloop.serve.texts import ReadText
from tuneloop.serve.work import DocumentWork, estimated_tokens

PROBABILITY_DIGITS = 6
LATE = 0.05  # seconds that a worker has to report a deadline itself

Outcome = Prediction | Problem


@dataclass(frozen=True)
class _Document:
    """A document of a request, or why it is not even asked."""

    read: ReadText
    tokens: int
    problem: Problem | None = None


def predict_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["predict"])

    @router.post(
        "/v1/predict", response_model=PredictResponse, responses=PROBLEM_RESPONSES, openapi_extra=needs("predict")
    )
    async def predict(request: Request, body: PredictRequest) -> Response:
        """Answer one document or several: label, probability, entities, and whether a person should look.

        A document that cannot be answered has an `error` in its place; the request fails only where all of them do.
        """
        who = accepted(request, service)
        with service.models.using(body.model) as model:
            answer = await _answer(service, request, who, body, model)
        return Response(answer.model_dump_json(), media_type="application/json")  # FastAPI would check it once more

    return router


async def _answer(
    service: Service, request: Request, who: Asked, body: PredictRequest, model: ServedModel
) -> PredictResponse:
    texts = [body.documents] if isinstance(body.documents, str) else body.documents
    documents = _read(service, texts)
    deadline_s = min(body.deadline_s or service.settings.deadline_s, service.settings.deadline_s)
    outcomes = await _ask(service, request, who, model, documents, deadline_s)
    _record(service, who, model, documents, outcomes)
    _require_an_answer(outcomes, is_single=isinstance(body.documents, str))
    results = [_result(*numbered) for numbered in enumerate(zip(documents, outcomes, strict=True))]
    return PredictResponse(
        request_id=who.request_id,
        model=model.name,
        version=model.version,
        calibrated=model.policy is not None,
        results=results,
    )


def _require_an_answer(outcomes: Sequence[Outcome], *, is_single: bool) -> None:
    """Raise the problem of a single document, or the service's own where it kept all of a list from an answer."""
    problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    if len(problems) == len(outcomes) and (is_single or all(problem.status >= 500 for problem in problems)):
        raise problems[0]


def _read(service: Service, texts: Sequence[str]) -> list[_Document]:
    """Return the documents as the model reads them. Raises: Problem: 413: too many."""
    settings = service.settings
    if len(texts) > settings.max_documents:
        found = f"{len(texts)} documents are more than the {settings.max_documents} of one request."
        raise Problem(413, "too-many-documents", found)
    documents = []
    for text in texts:
        problem = None
        if len(text) > settings.max_document_chars:
            found = f"The document has more than {settings.max_document_chars:,} characters."
            documents.append(_Document(ReadText(text, ""), 0, Problem(413, "document-too-long", found)))
            continue
        read = ReadText.of(text)
        if not read.text:
            problem = Problem(422, "document-empty", "The document is empty.")
        documents.append(_Document(read, estimated_tokens(read.text), problem))
    return documents


async def _ask(
    service: Service,
    request: Request,
    who: Asked,
    model: ServedModel,
    documents: Sequence[_Document],
    deadline_s: float,
) -> list[Outcome]:
    """Let the model's lane answer; what was not computed at the deadline, or when the caller leaves, is cancelled.

    Raises: Problem: 429, 503: the request is refused as a whole.
    """
    good = [document for document in documents if document.problem is None]
    tokens = sum(document.tokens for document in good)
    model.lane.require_room("document", len(good), tokens, deadline_s)
    service.guard.charge(who.caller, 1, tokens)
    loop, deadline = asyncio.get_running_loop(), time.monotonic() + deadline_s
    works = {
        id(document): DocumentWork(
            model, who.caller.id, document.tokens, deadline, document.read.text, loop.create_future()
        )
        for document in good
    }
    model.lane.submit(works.values())
    await _wait(request, list(works.values()), deadline_s)
    return [document.problem or _outcome(works[id(document)]) for document in documents]


def _outcome(work: DocumentWork) -> Outcome:
    return work.answer.result() if work.answer.done() and not work.answer.cancelled() else too_late()


async def _wait(request: Request, works: Sequence[DocumentWork], deadline_s: float) -> None:
    """Wait until all are answered, the deadline is over, or the caller has gone; cancel the rest."""
    if not works:
        return
    gone = asyncio.ensure_future(disconnected(request.receive))
    is_single = len(works) == 1  # the usual case, in which one task fewer is to be made
    answers: asyncio.Future[Any] = (
        works[0].answer if is_single else asyncio.ensure_future(asyncio.wait([work.answer for work in works]))
    )
    try:
        done, _ = await asyncio.wait({gone, answers}, timeout=deadline_s + LATE, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        works[0].model.lane.cancel([work for work in works if not work.answer.done()])
        answers.cancel()
    if done == {gone}:
        raise Problem(CLIENT_GONE, "client-gone", "The caller has closed the connection.")


def _record(
    service: Service, who: Asked, model: ServedModel, documents: Sequence[_Document], outcomes: Sequence[Outcome]
) -> None:
    """Count and log what was answered."""
    now, latency_s = datetime.now(UTC), time.monotonic() - who.began
    entries = []
    for item, (document, outcome) in enumerate(zip(documents, outcomes, strict=True)):
        if isinstance(outcome, Problem):
            service.metrics.failed_documents.labels(model.name, outcome.code).inc()
            continue
        service.metrics.documents.labels(model.name, model.version, outcome.route).inc()
        service.metrics.tokens.labels(model.name, "read").inc(document.tokens)
        entries.append(
            Served(
                request_id=who.request_id,
                item=item,
                at=now,
                caller=who.caller.id,
                model=model.name,
                version=model.version,
                text=document.read.text,
                prediction=outcome,
                latency_s=latency_s,
                tokens=document.tokens,
            )
        )
    service.log.record(entries)


def _result(index: int, answered: tuple[_Document, Outcome]) -> DocumentAnswer:
    document, outcome = answered
    if isinstance(outcome, Problem):
        error = DocumentError(code=outcome.code, detail=outcome.detail)
        return DocumentAnswer(
            index=index, label=None, probability=None, entities=None, route=None, reason=None, error=error
        )
    found = outcome.entities
    return DocumentAnswer(
        index=index,
        label=outcome.label,
        probability=round(outcome.probability, PROBABILITY_DIGITS) if outcome.states_probability else None,
        entities=None if found is None else [_entity(document.read, entity) for entity in found],
        route=outcome.route,
        reason=outcome.reason,
        error=None,
    )


def _entity(read: ReadText, entity: Entity) -> FoundEntity:
    places = [Occurrence(start=start, end=end) for start, end in read.occurrences(entity.text)]
    first = places[0]
    text = read.sent[first.start : first.end]
    return FoundEntity(type=entity.type, text=text, start=first.start, end=first.end, occurrences=places)
