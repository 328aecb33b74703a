from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import Running, running
from tuneloop.config.protection import LogConfig
from tuneloop.config.schema import StoreConfig
from tuneloop.serve.feedback import feedback_router
from tuneloop.serve.log_queries import LogFilter, LoggedAnswer, newest
from tuneloop.serve.protection import open_memory
from tuneloop.store.database import Database, open_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(StoreConfig(root=tmp_path)) as opened:
        yield opened


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Running]:
    memory = open_memory(LogConfig(write_every_s=60), database, tmp_path)  # feedback has to make it hurry
    routers = [lambda service: feedback_router(service, memory.feedback)]
    with running(KeywordEngine(), log=memory.log, routers=routers) as started:
        yield started


def give(service: Running, **body: Any) -> httpx.Response:
    with service.client() as client:
        return client.post("/v1/feedback", json=body)


def logged(database: Database) -> LoggedAnswer:
    (one,) = newest(database, LogFilter(), 1)
    return one


def test_the_right_answer_is_kept_at_once_and_saying_it_again_adds_nothing(
    service: Running, database: Database
) -> None:
    asked = service.predict(["it purrs", "Tom barks"]).json()["request_id"]
    first = give(service, request_id=asked, index=1, label="bird", comment="It sang.")
    assert (first.status_code, first.json()["status"]) == (200, "recorded")
    again = give(service, request_id=asked, index=1, label="bird", comment="It sang.")
    assert again.json() == {**first.json(), "status": "already-recorded"}
    one = logged(database)
    assert (one.row.request_id, one.row.item, one.right_label, one.comment) == (asked, 1, "bird", "It sang.")
    assert (one.row.label, one.row.text, one.feedback_by) == ("dog", "Tom barks", "local")


def test_feedback_on_generated_text_is_refused(service: Running) -> None:
    body = {"model": "default", "prompt": "Once"}
    with service.client() as client:
        request_id = client.post("/v1/completions", json=body).headers["X-Request-Id"]
    refused = give(service, request_id=request_id, label="cat")
    assert (refused.status_code, refused.json()["code"]) == (422, "feedback-does-not-fit")
    assert "generated text" in refused.json()["errors"][0]["message"]


def test_entities_are_placed_in_the_document_and_none_means_none(service: Running, database: Database) -> None:
    asked = service.predict("a cat named Zoé").json()["request_id"]
    assert give(service, request_id=asked, entities=[{"type": "name", "text": "Zoé"}]).status_code == 200
    assert logged(database).right_entities == [{"type": "name", "text": "Zoé", "start": 12, "end": 15}]
    assert give(service, request_id=asked, entities=[]).status_code == 200
    assert logged(database).right_entities == []


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, "label"),
        ({"label": "horse"}, "label"),
        ({"entities": [{"type": "place", "text": "cat"}]}, "entities[0].type"),
        ({"entities": [{"type": "name", "text": "Rex"}]}, "entities[0].text"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_and_nothing_is_kept(
    service: Running, database: Database, body: dict[str, Any], location: str
) -> None:
    asked = service.predict("a cat named Zoé").json()["request_id"]
    refused = give(service, request_id=asked, **body)
    assert (refused.status_code, refused.json()["code"]) == (422, "feedback-does-not-fit")
    assert refused.json()["errors"][0]["location"] == location
    assert "horse" not in refused.text
    assert service.service.log.flush(20)
    assert not logged(database).has_feedback


def test_an_answer_that_is_not_in_the_log_takes_no_feedback(service: Running) -> None:
    asked = service.predict("it purrs").json()["request_id"]
    assert give(service, request_id="0" * 32, label="cat").json()["code"] == "request-unknown"
    assert give(service, request_id=asked, index=1, label="cat").status_code == 404
    assert give(service, request_id="\x00'; --", label="cat").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"label": "cat"},
        {"request_id": "x", "label": "cat", "index": -1},
        {"request_id": "x", "label": "cat", "index": 2**40},
        {"request_id": "x" * 65, "label": "cat"},
        {"request_id": "x", "label": "cat", "extra": 1},
        {"request_id": "x", "label": 3},
    ],
)
def test_a_malformed_request_is_refused(service: Running, body: dict[str, Any]) -> None:
    assert give(service, **body).status_code == 422


def test_a_masked_log_takes_no_personal_data_in_by_its_feedback(database: Database, tmp_path: Path) -> None:
    memory = open_memory(LogConfig(redact="mask"), database, tmp_path)
    routers = [lambda service: feedback_router(service, memory.feedback)]
    with running(KeywordEngine(), log=memory.log, routers=routers) as service:
        asked = service.predict("it purrs, says ann@example.org").json()["request_id"]
        right = [{"type": "name", "text": "ann@example.org"}]
        assert give(service, request_id=asked, entities=right, comment="ask bob@example.org").status_code == 200
    one = logged(database)
    assert one.row.text == "it purrs, says [EMAIL]"
    assert one.right_entities == [{"type": "name", "text": "[EMAIL]", "start": -1, "end": -1}]
    assert one.comment == "ask [EMAIL]"


def test_a_service_without_a_log_says_that_it_takes_no_feedback(database: Database, tmp_path: Path) -> None:
    memory = open_memory(LogConfig(sample=0, keep_review=False), database, tmp_path)
    assert memory.feedback is None
    with running(KeywordEngine(), log=memory.log, routers=[lambda service: feedback_router(service, None)]) as service:
        assert give(service, request_id="x", label="cat").json()["code"] == "log-off"


def test_a_stopped_service_has_logged_everything_that_it_answered(database: Database, tmp_path: Path) -> None:
    memory = open_memory(LogConfig(write_every_s=60), database, tmp_path)
    with running(KeywordEngine(), log=memory.log) as service:
        for _ in range(5):
            assert service.predict(["it purrs"] * 4).status_code == 200
    assert memory.log.state.written == 20
    assert len(newest(database, LogFilter(), 100)) == 20
