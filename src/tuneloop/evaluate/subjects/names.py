"""Who answers: what `tuneloop compare` and `tuneloop gate` are told, as a value.

A subject is a model and the way it is asked, written PROMPT@MODEL; either part may be left out:

    zero-shot (or base), few-shot, retrieved     the base model, asked in that way
    tuned, run:ID                                a fine-tuned model, asked as it was trained
    model:FOLDER_OR_NAME                         any other model on disk or on the Hub (merged, quantised, a rival)
    api:openai/MODEL, api:URL#MODEL, …           a model behind an API
    file:PATH                                    answers that another system gave
    few-shot@model:…, retrieved@api:…            those models, asked in that way
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.errors import UsageError, nearest
from tuneloop.infer.endpoints import Endpoint
from tuneloop.runs import run_with

Prompt = Literal["zero-shot", "few-shot", "retrieved"]
Model = Literal["base", "run", "model", "api", "file"]
PROMPTS: tuple[Prompt, ...] = get_args(Prompt)
PROMPT_TITLES: dict[Prompt, str] = {
    "zero-shot": "zero-shot",
    "few-shot": "few-shot",
    "retrieved": "retrieved few-shot",
}
FORMS = (
    "base, few-shot, retrieved, tuned, run:ID, model:FOLDER, api:openai/MODEL, api:URL#MODEL or file:PATH, "
    "and few-shot@… or retrieved@… before a model or an API"
)


@dataclass(frozen=True)
class Subject:
    """Something that answers. `name` is unique in a comparison; `title` is for people.

    `run` is set for a tuned model, `model_path` for a model on disk or the Hub, `endpoint` for an API, `file` for
    answers from outside.
    """

    name: str
    title: str
    model: Model
    prompt: Prompt = "zero-shot"
    run: Artifact | None = None
    model_path: str | None = None
    endpoint: Endpoint | None = None
    file: Path | None = None


def parse_subject(text: str, store: ArtifactStore, find_tuned: Callable[[], Artifact]) -> Subject:
    """Return the subject that `text` names. `find_tuned` returns the run that the configuration describes.

    Raises: UsageError: it names none; ArtifactError: there is no such run.
    """
    spelled = "zero-shot" if text == "base" else text
    head, at, model = spelled.partition("@")
    prompt = next((known for known in PROMPTS if known == head), None)
    if prompt is not None and not at:
        return Subject(spelled, f"Base model, {PROMPT_TITLES[prompt]}", "base", prompt)
    if prompt is not None:
        subject = _model(spelled, model, store, find_tuned, prompt)
        if subject.model in ("run", "file"):
            raise UsageError(
                f"{model!r} is not asked in another way: a tuned model has the prompt it was trained with, and a file "
                "holds answers",
                where=text,
                hint=f"Write {model} alone.",
            )
        return subject
    return _model(spelled, spelled, store, find_tuned, "zero-shot")


def _model(name: str, text: str, store: ArtifactStore, find_tuned: Callable[[], Artifact], prompt: Prompt) -> Subject:
    if text == "tuned":
        return Subject(name, "Tuned model", "run", run=find_tuned())
    kind, colon, rest = text.partition(":")
    asked = "" if prompt == "zero-shot" else f", {PROMPT_TITLES[prompt]}"
    if kind == "run" and rest:
        run = run_with(store, rest, text)
        return Subject(f"run:{run.id[:8]}", f"Tuned model {run.id[:8]}", "run", run=run)
    if kind == "model" and rest:
        return Subject(name, f"{rest.rstrip('/').rpartition('/')[2]}{asked}", "model", prompt, model_path=rest)
    if kind == "api" and rest:
        endpoint = Endpoint.parse(rest)
        return Subject(name, f"{endpoint.model}{asked}", "api", prompt, endpoint=endpoint)
    if kind == "file" and rest:
        return Subject(name, f"Answers of {Path(rest).name}", "file", file=Path(rest))
    known = ["base", *PROMPTS, "tuned", "run:", "model:", "api:", "file:"]
    raise UsageError(
        f"{text!r} names nothing that can answer{nearest(kind + colon, known)}", where=name, hint=f"Write {FORMS}."
    )
