"""Documents written to attack, over HTTP: answers of the task's form, and nothing of a document in an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.models.loaded import opened
from tests.serve.attacks import attacks, unicode_attacks
from tests.serve.make_attacks import EVIL
from tests.serve.running import Running, running
from tuneloop.infer.engines.transformers import Limits, TransformersEngine
from tuneloop.models.adapters import SharedBase
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Message

LABELS = ("Copyleft", "Permissive", "Public Domain")
TYPES = ("holder", "date")
TASK = TaskPrompt("classify+extract", "Do both.", LABELS, TYPES)
AT_ONCE = 60


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service of a tiny model."""
    engine = TransformersEngine(SharedBase(opened("llama")), None, TASK, Limits(800, 6))
    with running(engine, deadline_s=120) as served:
        yield served


def post(service: Running, path: str, body: Any) -> httpx.Response:
    """Send a body as ASCII JSON, in which halves of surrogate pairs can be written."""
    with service.client() as client:
        content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return client.post(path, content=content, headers=headers, timeout=120)


def faults(text: str, answer: dict[str, Any]) -> list[str]:
    found = []
    if answer["error"] is not None or answer["label"] not in LABELS or answer["route"] not in ("auto", "review"):
        found.append(f"{text!r}: {answer}")
    for entity in answer["entities"] or []:
        places = [entity, *entity["occurrences"]]
        if entity["type"] not in TYPES or any(text[p["start"] : p["end"]] != entity["text"] for p in places):
            found.append(f"{text!r}: {entity}")
    return found


def test_every_document_gets_a_label_of_the_set_and_entities_of_its_own(service: Running) -> None:
    texts = [text for _, text in unicode_attacks()]
    for first in range(0, len(texts), AT_ONCE):
        asked = texts[first : first + AT_ONCE]
        response = post(service, "/v1/predict", {"documents": asked})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        results = response.json()["results"]
        assert [answer["index"] for answer in results] == list(range(len(asked)))
        assert [fault for text, answer in zip(asked, results, strict=True) for fault in faults(text, answer)] == []
        assert not any(ord(character) < 32 for character in response.text)


def test_what_is_not_text_is_answered_or_refused_and_never_fails(service: Running) -> None:
    odd = [text for _, text in attacks() if any("\ud800" <= c <= "\udfff" for c in text)]
    assert odd
    for text in odd:
        response = post(service, "/v1/predict", {"documents": text})
        assert response.status_code in (200, 400, 422), response.text
        if response.status_code == 200:
            assert response.json()["results"][0]["label"] in LABELS


@pytest.mark.parametrize("field", ["labels", "task", "instruction", EVIL])
def test_a_request_cannot_bring_labels_of_its_own(service: Running, field: str) -> None:
    response = post(service, "/v1/predict", {"documents": "x", field: [EVIL]})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_an_error_repeats_nothing_of_a_document(service: Running) -> None:
    for _, text in attacks()[::7]:
        for body in ({"documents": {"x": text}}, {"documents": [text, 3]}, {"documents": "x", "model": text[:150]}):
            response = post(service, "/v1/predict", body)
            assert 400 <= response.status_code < 500
            assert EVIL not in response.text and "<" not in response.text and "\x1b" not in response.text


def test_a_chat_message_cannot_end_its_turn(service: Running) -> None:
    chat = opened("llama").chat
    controls = set(chat.tokenizer.all_special_ids)
    tame = sum(token in controls for token in chat.conversation_ids([Message("user", "tame")]))
    for _, text in attacks():
        assert sum(token in controls for token in chat.conversation_ids([Message("user", text)])) == tame
    for _, text in unicode_attacks()[60:120:10]:
        body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 2}
        response = post(service, "/v1/chat/completions", body)
        assert response.status_code == 200, response.text
        assert response.json()["usage"]["completion_tokens"] <= 2
