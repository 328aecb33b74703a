"""tuneloop's own service behind its URL, asked as its clients ask it: POST /v1/predict.

It tells labels, entities, routes and calibrated probabilities, and neither prompts nor label scores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from tuneloop.config.serving import is_loopback
from tuneloop.errors import ModelError, NetworkError, UsageError
from tuneloop.infer.endpoints import OTHER_VARIABLE, ApiKey, Endpoint
from tuneloop.infer.predict import Mode
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import UNSTATED_PROBABILITY, Entity, Prediction

AT_ONCE = 16  # documents of a request: few, so that one fits into a service that was given narrow limits
TIMEOUT_S = 120.0
BUSY = {429, 503}
TRIES, LONGEST_WAIT_S = 5, 30.0


class ServiceClient:
    """A service at `url`, asked for one task.

    Args: url: http://HOST[:PORT], and #MODEL for another model than its first; task: what it is expected to answer.
    Raises: UsageError: the URL cannot be used.
    """

    name = "service"

    def __init__(self, url: str, task: TaskPrompt, *, timeout_s: float = TIMEOUT_S) -> None:
        address, _, model = url.partition("#")
        endpoint = _endpoint(address.rstrip("/").removesuffix("/v1"), model or "default")
        self._url, self._model, self._key = endpoint.base_url, model or None, endpoint.key()
        self._task = task
        trust_env = not is_loopback(urlsplit(self._url).hostname or "")  # no proxy to ourselves
        self._client = httpx.Client(timeout=timeout_s, trust_env=trust_env)
        self.is_calibrated = False
        self.version = ""

    def __repr__(self) -> str:
        return f"ServiceClient({self._url!r})"

    @property
    def task(self) -> TaskPrompt:
        return self._task

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order; a probability that the service does not tell is unstated (0).

        Raises: NetworkError: it cannot be reached, or stays busy; UsageError: it refuses key or model; ModelError: it
            does not answer as a tuneloop service does.
        """
        answers: list[Prediction] = []
        for start in range(0, len(texts), AT_ONCE):
            asked = list(texts[start : start + AT_ONCE])
            answers += self._read(self._ask(asked), len(asked))
            if advance is not None:
                advance(len(asked))
        return answers

    def rendered_prompt(self, text: str) -> str:
        """Raises: ModelError: always."""
        raise self._unexpected("a service does not tell its prompts")

    def prompt_ids(self, text: str) -> list[int]:
        """Raises: ModelError: always."""
        raise self._unexpected("a service does not tell its tokens")

    def close(self) -> None:
        """Close the connection; the service goes on."""
        self._client.close()

    def _ask(self, documents: list[str]) -> httpx.Response:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key.reveal()}"}
        body = {"documents": documents, "model": self._model}
        for attempt in range(TRIES):
            try:
                response = self._client.post(f"{self._url}/v1/predict", json=body, headers=headers)
            except httpx.HTTPError as error:
                hint = "Check that it runs, and the address."
                found = f"the service cannot be reached ({type(error).__name__})"
                raise NetworkError(found, where=self._url, hint=hint) from error
            if response.status_code not in BUSY or attempt == TRIES - 1:
                break
            time.sleep(_wait_s(response))
        return response

    def _read(self, response: httpx.Response, count: int) -> list[Prediction]:
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        try:
            content = response.json()
            self.is_calibrated, self.version = bool(content["calibrated"]), str(content["version"])
            answers = [_prediction(one) for one in sorted(content["results"], key=lambda one: int(one["index"]))]
        except (ValueError, KeyError, TypeError) as error:
            found = f"this is not how a tuneloop service answers ({type(error).__name__}: {error})"
            raise self._unexpected(found) from error
        if len(answers) != count:
            raise self._unexpected(f"{len(answers)} answers came to {count} documents")
        return answers

    def _refused(self, response: httpx.Response) -> UsageError | NetworkError:
        detail = _redacted(_detail(response), self._key)
        found = f"the service answers {response.status_code}: {detail}"
        if response.status_code in (401, 403):
            hint = f"Set a key with the scope predict: export {OTHER_VARIABLE}=tl_…"
            return UsageError(found, where=self._url, hint=hint)
        if response.status_code in (400, 404, 413, 422):
            return UsageError(found, where=self._url, hint="Check the address, and the model after #.")
        return NetworkError(found, where=self._url, hint="Look into the service's log, and try again when it is idle.")

    def _unexpected(self, found: str) -> ModelError:
        return ModelError(found, where=self._url, hint="Give the address of `tuneloop serve`, or URL#MODEL of another.")


def _endpoint(base_url: str, model: str) -> Endpoint:
    if urlsplit(base_url).hostname is None:
        raise UsageError("this is no http address", where=base_url, hint="Write http://127.0.0.1:8000.")
    return Endpoint.parse(f"{base_url}#{model}")


def _prediction(answer: dict[str, Any]) -> Prediction:
    if answer["error"] is not None:
        raise ValueError(f"document {answer['index']} has no answer: {answer['error']['code']}")
    entities, probability = answer["entities"], answer["probability"]
    reason = answer["reason"]
    return Prediction(
        label=answer["label"],
        probability=UNSTATED_PROBABILITY if probability is None else float(probability),
        entities=None
        if entities is None
        else tuple(Entity(one["type"], one["text"], one["start"], one["end"]) for one in entities),
        invented=reason == "invented",
        well_formed=reason != "malformed",
        route=answer["route"],
        reason=reason,
    )


def _wait_s(response: httpx.Response) -> float:
    given = response.headers.get("Retry-After", "")
    return min(float(given), LONGEST_WAIT_S) if given.isdigit() else 1.0


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _redacted(text: str, key: ApiKey | None) -> str:
    return text if key is None else key.redact(text)
