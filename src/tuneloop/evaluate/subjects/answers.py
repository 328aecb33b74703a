"""One subject's answers to the frozen items: asked once, kept as an artifact, and read by every evaluation after that.

A baseline's answers do not depend on the tuned model, so a new run is compared without asking the baselines again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, Build, content_id, sha256_of
from tuneloop.config.schema import Config, EvaluateConfig
from tuneloop.dataset import dataset_of, open_dataset, stratified_subset
from tuneloop.evaluate.comparison.scores import SubjectAnswers
from tuneloop.evaluate.subjects.asking import Answered, ask_api, ask_model, read_file
from tuneloop.evaluate.subjects.names import Subject
from tuneloop.evaluate.subjects.prices import api_cost, machine_cost
from tuneloop.infer.completion import Completion
from tuneloop.infer.endpoints import Endpoint
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.infer.predictions import read_predictions, write_predictions
from tuneloop.models.load import base_model_folder, fingerprint
from tuneloop.progress import Progress
from tuneloop.records import Example, Prediction

KIND = "answers"
STAGE_VERSION = 2  # raise it when the same inputs would give other answers
CLOSED, FREE, ASKED = "closed.jsonl", "free.jsonl", "asked.json"
LOCAL_SETTINGS = {"free_generation_examples", "max_new_tokens"}
API_SETTINGS = {"free_generation_examples", "api_max_tokens"}


def frozen_items(config: Config, dataset: Artifact) -> list[Example]:
    """Return the test items that every subject answers, in the same order."""
    settings = config.evaluate
    return stratified_subset(open_dataset(dataset).split("test"), settings.max_examples, settings.seed)


def ask(subject: Subject, config: Config, dataset: Artifact, store: ArtifactStore, progress: Progress) -> Artifact:
    """Return the artifact with the subject's answers, asking where they are not there yet.

    Raises: ModelError, NetworkError, UsageError: the model cannot be had; DataError: a file of answers is wrong, or a
        run was trained on some of the items.
    """
    inputs = _inputs(subject, config, dataset, progress)
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        progress.say(f"{subject.title}: answered already ({id}).")
        return artifact
    parents = {"dataset": dataset.id} | ({"run": subject.run.id} if subject.run else {})
    scratch = store.root / KIND / f".paid-{id}"
    with store.build(KIND, id, parents=parents, inputs=inputs, seed=config.evaluate.seed, scratch=scratch) as build:
        items = frozen_items(config, dataset)
        if subject.model == "api":
            answered = ask_api(subject, config, dataset, items, scratch, progress)
        elif subject.model == "file":
            answered = read_file(subject, config, dataset, items)
        else:
            answered = ask_model(subject, config, dataset, items, progress)
        _write(answered, subject, build)
    return store.get(id)


def read_answers(
    artifact: Artifact,
    settings: EvaluateConfig | None = None,
    policy: ReviewPolicy | None = None,
    threshold: float | None = None,
) -> SubjectAnswers:
    """Return what `ask` wrote.

    Args: settings: tell what an API's tokens and an hour of this machine cost; policy: the calibration of a tuned
        model, applied to its closed answers; threshold: without a policy, the probability from which a closed answer
        needs no person (None: as when it was asked).
    """
    asked = json.loads((artifact.path / ASKED).read_text(encoding="utf-8"))
    free = artifact.path / FREE
    closed = read_predictions(artifact.path / CLOSED)
    if policy is not None:
        closed = policy.apply(closed)
    elif threshold is not None:
        closed = [_routed(answer, threshold) for answer in closed]
    calls = [Completion(text="", finish_reason="other", **call) for call in asked["calls"]]
    return SubjectAnswers(
        name=asked["name"],
        title=asked["title"],
        closed=_in_order(closed, asked["labels"], dataset_of(artifact).labels),
        free=read_predictions(free) if free.exists() else None,
        latency_s=asked["latency_s"],
        tokens_in=sum(call.input_tokens for call in calls) if calls else None,
        tokens_out=sum(call.output_tokens for call in calls) if calls else None,
        cost_usd=_cost(asked, calls, settings or EvaluateConfig()),
        details=asked["details"],
    )


def _inputs(subject: Subject, config: Config, dataset: Artifact, progress: Progress) -> dict[str, Any]:
    """Return everything that the answers depend on."""
    settings = config.evaluate
    inputs: dict[str, Any] = {
        "stage_version": STAGE_VERSION,
        "subject": "run" if subject.run else subject.name,  # `tuned` and its `run:ID` give the same answers
        "dataset": dataset.id,
        "items": settings.model_dump(mode="json", include={"max_examples", "seed"}),
        "task": config.task.model_dump(mode="json", include={"instruction", "name_labels_in_prompt"}),
    }
    if subject.prompt != "zero-shot":
        inputs["shots"] = settings.shots
    if subject.prompt == "retrieved":
        inputs["near_duplicates"] = config.data.near_duplicates.model_dump(
            mode="json", include={"threshold", "shingle_words"}
        )
    if subject.file is not None:
        return inputs | {"file": sha256_of(subject.file) if subject.file.is_file() else None}
    if subject.endpoint is not None:
        return inputs | {"api": settings.model_dump(mode="json", include=API_SETTINGS)}
    model = config.model
    if subject.model_path is not None:
        model = model.model_copy(update={"base_model": subject.model_path, "revision": None})
    return inputs | {
        "run": subject.run.id if subject.run else None,
        "base_model": fingerprint(base_model_folder(model, progress)),
        "model": config.model.model_dump(mode="json", include={"dtype", "max_tokens"}),
        "label_scoring": config.model.scoring(is_tuned=subject.run is not None),
        "generate": settings.model_dump(mode="json", include=LOCAL_SETTINGS),
    }


def _write(answered: Answered, subject: Subject, build: Build) -> None:
    write_predictions(build.path / CLOSED, answered.closed)
    if answered.free is not None:
        write_predictions(build.path / FREE, answered.free)
    counted = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "seconds")
    asked = {
        "name": subject.name,
        "title": subject.title,
        "labels": list(answered.labels),
        "latency_s": list(answered.latency_s),
        "busy_s": answered.busy_s,
        "endpoint": None if subject.endpoint is None else vars(subject.endpoint),
        "calls": [{name: getattr(call, name) for name in counted} for call in answered.calls],
        "details": _details(subject, answered),
    }
    (build.path / ASKED).write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    free = len(answered.free or ())
    build.summary.update({"subject": subject.name, "items": len(answered.closed), "free_items": free})


def _details(subject: Subject, answered: Answered) -> dict[str, str]:
    """Return what the subject is, in words for the report."""
    details: dict[str, str] = {"prompt": subject.prompt} if subject.model in ("base", "model", "api") else {}
    if subject.run is not None:
        limit = subject.run.manifest["inputs"]["train"]["max_examples"]
        available = len(dataset_of(subject.run).split("train"))
        taken = available if limit is None else min(limit, available)
        details |= {"run": subject.run.id, "train_examples": str(taken)}
    if subject.model_path is not None:
        details["model"] = subject.model_path
    if subject.endpoint is not None:
        details |= {"model": subject.endpoint.model, "address": subject.endpoint.base_url}
    if subject.file is not None:
        details["file"] = subject.file.name
    if answered.notes:
        details["notes"] = "; ".join(answered.notes)
    return details


def _cost(asked: dict[str, Any], calls: list[Completion], settings: EvaluateConfig) -> float | None:
    """Return the US dollars that all closed answers cost, None where that is not known."""
    if asked["endpoint"] is not None:
        cost = api_cost(Endpoint(**asked["endpoint"]), calls, settings.prices)
    elif asked["busy_s"] is not None:
        cost = machine_cost(settings.machine_usd_per_hour, [asked["busy_s"]])
    else:
        return None
    return None if cost.per_document_usd is None else sum(cost.per_document_usd)


def _routed(answer: Prediction, threshold: float) -> Prediction:
    """Route an answer by its probability, unless it cannot be used or tells none."""
    if answer.reason not in ("", "unsure") or not answer.states_probability:
        return answer
    is_sure = answer.probability >= threshold
    return replace(answer, route="auto" if is_sure else "review", reason="" if is_sure else "unsure")


def _in_order(answers: list[Prediction], given: list[str], labels: tuple[str, ...]) -> list[Prediction]:
    """Bring scores into the order of the dataset's label set; a model of another label set keeps none."""
    if tuple(given) == labels:
        return answers
    if set(given) != set(labels):
        outside = set(given) - set(labels)
        return [replace(a, label_scores=None, invented=a.invented or a.label in outside) for a in answers]
    places = [given.index(label) for label in labels]
    return [
        a if a.label_scores is None else replace(a, label_scores=tuple(a.label_scores[place] for place in places))
        for a in answers
    ]
