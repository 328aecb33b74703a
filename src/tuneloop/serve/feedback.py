"""`POST /v1/feedback`: the right answer to a document that was served, which is what the next model learns from."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from tuneloop.errors import StorageError
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Entity
from tuneloop.serve.entrance import asked
from tuneloop.serve.feedback_book import Answered, FeedbackBook, RightAnswer, missing_values
from tuneloop.serve.problems import Problem
from tuneloop.serve.schema import PROBLEM_RESPONSES, Wire
from tuneloop.serve.scopes import needs
from tuneloop.serve.service import Service

MAX_ENTITIES = 1000


class RightEntity(Wire):
    """A value of the document and its type."""

    type: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=10_000)]


class FeedbackRequest(Wire):
    """The right answer to one document of an earlier request: its label, its entities, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"request_id": "0f8fad5bd9cb469fa16570867728950e", "label": "card_arrival"},
                {
                    "request_id": "0f8fad5bd9cb469fa16570867728950e",
                    "index": 1,
                    "label": "Refund_not_showing_up",
                    "comment": "It is about a refund, not about a card.",
                },
            ]
        }
    )
    request_id: Annotated[str, Field(min_length=1, max_length=64)]
    """As the answer had it."""
    index: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """The place of the document in that request, from 0."""
    label: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The right label, which has to be one of the label set; null says nothing about it."""
    entities: Annotated[list[RightEntity], Field(max_length=MAX_ENTITIES)] | None = None
    """All values that the document has; an empty list: it has none; null says nothing about it."""
    comment: Annotated[str, Field(max_length=4000)] = ""


class FeedbackResponse(Wire):
    """That the feedback is kept."""

    request_id: str
    index: int
    feedback_id: int
    status: Literal["recorded", "already-recorded"]
    """`already-recorded`: the same had been said before, and nothing was added."""


def feedback_router(service: Service, book: FeedbackBook | None) -> APIRouter:
    """Return the route. `book` is None where nothing is logged: then it says so."""
    router = APIRouter(tags=["feedback"])

    @router.post("/v1/feedback", responses=PROBLEM_RESPONSES, openapi_extra=needs("feedback"))
    def feedback(request: Request, body: FeedbackRequest) -> FeedbackResponse:
        """Say what the right answer would have been. What is said last counts; saying it twice does no harm.

        Whoever knows a request id may correct it: ids are random, and only the caller and the log have them.
        """
        who = asked(request)
        service.guard.charge(who.caller, 1, 0)
        if book is None:
            raise Problem(404, "log-off", "This service keeps no log of its answers, and can take no feedback.")
        try:
            id, is_new = _keep(service, book, body, who.caller.id)
        except StorageError as error:
            found = "The feedback could not be kept: the store does not answer."
            raise Problem(503, "store-unavailable", found, retry_after_s=5) from error
        status: Literal["recorded", "already-recorded"] = "recorded" if is_new else "already-recorded"
        return FeedbackResponse(request_id=body.request_id, index=body.index, feedback_id=id, status=status)

    return router


def _keep(service: Service, book: FeedbackBook, body: FeedbackRequest, caller: str) -> tuple[int, bool]:
    """Check the right answer against the task, and write it. Raises: Problem: 404, 422; StorageError."""
    if body.label is None and body.entities is None:
        raise _wrong("label", "Give a label, entities, or both.")
    answered = book.find(body.request_id, body.index)
    if answered is None:
        raise _unknown()
    if answered.kind != "predict":
        raise _wrong("request_id", "This was generated text; feedback is about labels and entities of documents.")
    entities = None if body.entities is None else tuple(Entity(one.type, one.text) for one in body.entities)
    _require_fitting(_task_of(service, answered), answered, body.label, entities)
    right = RightAnswer(label=body.label, entities=entities, caller=caller, comment=body.comment)
    kept = book.add(answered, right)
    if kept is None:
        raise _unknown()
    return kept


def _task_of(service: Service, answered: Answered) -> TaskPrompt:
    """Return the task that was answered: that of the same version if it still serves, else of its successor."""
    models = service.models.all()
    same = [model for model in models if model.version == answered.version]
    same += [model for model in models if model.name == answered.model]
    if not same:
        raise Problem(409, "model-gone", "The model that answered is not served any more, nor is one in its place.")
    return same[0].engine.task


def _require_fitting(
    task: TaskPrompt, answered: Answered, label: str | None, entities: tuple[Entity, ...] | None
) -> None:
    if label is not None and label not in task.labels:
        raise _wrong("label", "The label is not in the label set." if task.labels else "The task has no labels.")
    for place, entity in enumerate(entities or ()):
        if entity.type not in task.entity_types:
            raise _wrong(f"entities[{place}].type", "The task has no entities of this type.")
    if entities and answered.text is not None and (missing := missing_values(entities, answered.text)):
        raise _wrong(f"entities[{missing[0]}].text", "The value does not stand in the document.")


def _wrong(location: str, message: str) -> Problem:
    errors = [{"location": location, "message": message}]
    return Problem(422, "feedback-does-not-fit", "The feedback does not fit what was asked.", errors=errors)


def _unknown() -> Problem:
    found = "There is no such answer in the log: the id or index is wrong, it was not sampled, or its time is over."
    return Problem(404, "request-unknown", found)
