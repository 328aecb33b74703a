"""What goes over the wire under /v1/predict and /v1/admin: strict requests, answers with examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NOT_BLANK = r"[^\s\x1c-\x1f\x85]"  # as Python's strip sees it; a blank document among others has an error of its own


def _require_unicode(text: str) -> str:
    """Refuse halves of surrogate pairs, which JSON can spell and nothing else can. Raises: ValueError."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is not a character") from None
    return text


UnicodeText = Annotated[str, AfterValidator(_require_unicode)]
Text = Annotated[UnicodeText, Field(description="A document, as plain text.")]
SingleText = Annotated[UnicodeText, Field(json_schema_extra={"pattern": NOT_BLANK})]


class Wire(BaseModel):
    """Base of everything that is sent: unknown fields are refused, wrong types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


class PredictRequest(Wire):
    """One document or several, to be answered by one model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"documents": "My card has not arrived yet."},
                {"documents": ["My card has not arrived yet.", "Where is my refund?"], "model": "default"},
            ]
        }
    )
    documents: SingleText | Annotated[list[Text], Field(min_length=1)]
    """A document, or a list of documents. All of them are answered alone, whatever else is sent with them."""
    model: Annotated[str, Field(max_length=200)] | None = None
    """The served name of a model; null is the first one that is served."""
    deadline_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    """After so many seconds the answer is worth nothing; null (and anything longer) is the service's own limit."""


class Occurrence(Wire):
    """A place in the document: characters `start` to `end` (0-based, `end` not included)."""

    start: int
    end: int


class FoundEntity(Wire):
    """A value that the model found. `text` is document[start:end] for the first place where it occurs."""

    type: str
    text: str
    start: int
    end: int
    occurrences: list[Occurrence]
    """Every place where the value occurs, in order, none overlapping the one before."""


class DocumentError(Wire):
    """Why a document has no answer."""

    code: str
    detail: str


class DocumentAnswer(Wire):
    """What the model answers for one document; either `error` is null, or everything else but `index` is."""

    index: int
    """The place of the document in the request, from 0."""
    label: str | None
    """A label of the label set; null where the task has none."""
    probability: float | None
    """How sure the model is, from 0 to 1 (see `calibrated`); null where its engine does not tell."""
    entities: list[FoundEntity] | None
    """Values that occur in the document, each once; null where the task has none to find."""
    route: Literal["auto", "review"] | None
    """`review`: a person should look before the answer is used."""
    reason: str | None
    """Why a person should look: `unsure`, `out-of-scope`, `malformed`, `invented`; empty where nobody has to."""
    error: DocumentError | None


class PredictResponse(Wire):
    """Answers in the order of the documents."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "0f8fad5bd9cb469fa16570867728950e",
                    "model": "default",
                    "version": "3f9c2a7d51e08b46",
                    "calibrated": True,
                    "results": [
                        {
                            "index": 0,
                            "label": "card_arrival",
                            "probability": 0.972,
                            "entities": None,
                            "route": "auto",
                            "reason": "",
                            "error": None,
                        }
                    ],
                }
            ]
        }
    )
    request_id: str
    """Also in the header X-Request-Id. Feedback on the answers names it."""
    model: str
    version: str
    """The id of the run or export that answered."""
    calibrated: bool
    """Whether probabilities were calibrated on validation documents."""
    results: list[DocumentAnswer]


class ModelState(Wire):
    """A model in service."""

    name: str
    version: str
    engine: str
    task: str
    labels: int
    calibrated: bool
    aliases: list[str]
    up: bool
    requests: int
    """Requests that it is answering now."""
    since: int
    """When this version began to answer, in seconds since 1970."""


class ModelList(Wire):
    """All models in service; the first one answers requests that name none."""

    models: list[ModelState]


ServedName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Id = Annotated[str, Field(min_length=1, max_length=200)]


class SwitchToRun(Wire):
    """Let a name stand for a run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "default", "run": "3f9c2a7d51e08b46"}]})
    name: ServedName
    run: Id


class SwitchToExport(Wire):
    """Let a name stand for an export."""

    name: ServedName
    export: Id


class SwitchToAlias(Wire):
    """Let a name stand for another served name."""

    name: ServedName
    alias_of: ServedName


SwitchRequest = SwitchToRun | SwitchToExport | SwitchToAlias


class Health(Wire):
    """Whether the service can be used, and if not, why."""

    status: Literal["ok", "unavailable"]
    reasons: list[str]


class ProblemDetails(BaseModel):
    """Why a request was refused or failed (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:tuneloop:problem:queue-full",
                    "title": "Service Unavailable",
                    "status": 503,
                    "code": "queue-full",
                    "detail": "Too much waits already. Try again later.",
                    "request_id": "0f8fad5bd9cb469fa16570867728950e",
                }
            ]
        }
    )
    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
    for status, description in {
        400: "The request cannot be read.",
        401: "There is no key, or not a valid one.",
        403: "The key has not the scope that this needs.",
        404: "There is no such model.",
        408: "The request came too slowly.",
        413: "The request, or a part of it, is too large.",
        415: "The body is not JSON by its Content-Type.",
        422: "The request does not have the form that is described here.",
        429: "The key's quota is used up; Retry-After says when to try again.",
        500: "The model failed.",
        503: "Too much waits, or the service is not ready; Retry-After says when to try again.",
        504: "There was no answer before the deadline.",
    }.items()
}
