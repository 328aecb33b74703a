from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.serve.keyword_engine import POISON, KeywordEngine
from tests.serve.running import Running, running
from tuneloop.records import Prediction
from tuneloop.serve.guard import Caller, Scope
from tuneloop.serve.log import Entry, LogState, Served
from tuneloop.serve.problems import Problem


class ListLog:
    """Keeps entries in a list."""

    def __init__(self, is_full: bool = False) -> None:
        self.entries: list[Entry] = []
        self.is_full, self.state, self.is_closed = is_full, LogState(), False

    def record(self, entries: Sequence[Entry]) -> None:
        self.entries += entries

    def flush(self, timeout_s: float) -> bool:
        return True

    def close(self, timeout_s: float) -> LogState:
        self.is_closed = True
        return self.state


class OneKey:
    """A guard that knows one key, which may do one thing."""

    def __init__(self, scope: Scope = "predict", tokens: int = 1000) -> None:
        self.scope, self.tokens = scope, tokens

    def authenticate(self, headers: Any) -> Caller:
        if headers.get("authorization") != "Bearer good":
            raise Problem(401, "unauthenticated", "No.", headers={"WWW-Authenticate": "Bearer"})
        return Caller("k1", frozenset([self.scope]))

    def require(self, caller: Caller, scope: Scope) -> None:
        if scope not in caller.scopes:
            raise Problem(403, "scope-missing", "No.")

    def charge(self, caller: Caller, requests: int, tokens: int) -> None:
        if tokens > self.tokens:
            raise Problem(429, "quota", "No.", retry_after_s=3.2)


def wait_until(condition: Any) -> None:
    """Return when the condition holds; fails after 10 s."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_answers_come_in_order_with_offsets_of_every_occurrence_and_name_their_version() -> None:
    with running(KeywordEngine()) as served:
        response = served.predict(["Tom purrs. Tom!", "Zoe\u0301 barks"])
    answer = response.json()
    assert response.status_code == 200
    assert (answer["model"], answer["version"], answer["calibrated"]) == ("default", "v1", False)
    assert answer["request_id"] == response.headers["X-Request-Id"]
    assert "server" not in response.headers
    first, second = answer["results"]
    assert (first["index"], first["label"], second["index"], second["label"]) == (0, "cat", 1, "dog")
    assert first["entities"] == [
        {
            "type": "name",
            "text": "Tom",
            "start": 0,
            "end": 3,
            "occurrences": [{"start": 0, "end": 3}, {"start": 11, "end": 14}],
        }
    ]
    (zoe,) = second["entities"]
    assert (zoe["text"], zoe["start"], zoe["end"]) == ("Zoe\u0301", 0, 4)
    assert {(one["route"], one["reason"]) for one in answer["results"]} <= {("auto", ""), ("review", "unsure")}


def test_one_document_may_come_without_a_list() -> None:
    with running(KeywordEngine()) as served:
        assert [one["label"] for one in served.predict("it sings").json()["results"]] == ["bird"]


def test_a_bad_document_has_an_error_in_its_place_and_the_others_have_answers() -> None:
    with running(KeywordEngine(), max_document_chars=40) as served:
        results = served.predict(["it purrs", " \n", "x" * 41, POISON, "it barks"]).json()["results"]
        alone = served.predict(" ")
    assert [one["label"] for one in results] == ["cat", None, None, None, "dog"]
    codes = [one["error"] and one["error"]["code"] for one in results]
    assert codes == [None, "document-empty", "document-too-long", "not-answered", None]
    assert (alone.status_code, alone.json()["code"]) == (422, "document-empty")


def test_many_callers_at_once_share_batches_and_each_gets_the_answers_to_its_own_documents() -> None:
    engine = KeywordEngine()
    sounds = {"purrs": "cat", "barks": "dog", "sings": "bird"}
    asked = [[f"{sound} {n} {m}" for m, sound in enumerate(sounds)] for n in range(24)]
    with running(engine) as served, ThreadPoolExecutor(24) as pool:
        alone = [served.predict(texts).json()["results"] for texts in asked]
        engine.gate.clear()
        together = [pool.submit(served.predict, texts) for texts in asked]
        lane = served.service.models.all()[0].lane
        wait_until(lambda: lane.waiting_documents >= 3 * 20)
        engine.batches.clear()
        engine.gate.set()
        assert [future.result().json()["results"] for future in together] == alone
        assert len(engine.batches) < 24
        metrics = served.get("/metrics").text
    assert 'tuneloop_documents_total{model="default"' in metrics


def test_the_log_has_every_answer_and_nothing_else() -> None:
    log = ListLog()
    with running(KeywordEngine(), log=log) as served:
        answer = served.predict([" Tom purrs\r\n", ""]).json()
    (entry,) = log.entries
    assert isinstance(entry, Served)
    assert (entry.request_id, entry.item, entry.caller) == (answer["request_id"], 0, "local")
    assert (entry.text, entry.prediction.label, entry.version) == ("Tom purrs", "cat", "v1")
    assert log.is_closed


def test_a_full_log_refuses_before_anything_is_computed() -> None:
    engine = KeywordEngine()
    with running(engine, log=ListLog(is_full=True)) as served:
        engine.batches.clear()
        refused = served.predict("it purrs")
        unready = served.get("/readyz")
    assert (refused.status_code, refused.json()["code"], engine.batches) == (503, "log-full", [])
    assert (unready.status_code, unready.json()["reasons"]) == (503, ["the prediction log is full"])


def test_overload_is_refused_with_retry_after_and_what_was_accepted_is_answered() -> None:
    engine = KeywordEngine()
    with running(engine, max_waiting_documents=4) as served, ThreadPoolExecutor(12) as pool:
        engine.gate.clear()
        engine.entered.clear()
        futures = [pool.submit(served.predict, "it barks")]
        assert engine.entered.wait(10)
        futures += [pool.submit(served.predict, f"it barks {n}") for n in range(11)]
        wait_until(lambda: sum(future.done() for future in futures) >= 7)
        engine.gate.set()
        responses = [future.result() for future in futures]
    refused = [response for response in responses if response.status_code == 503]
    assert len(refused) == 7
    assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
    assert {response.json()["code"] for response in refused} == {"queue-full"}
    answered = [response for response in responses if response.status_code == 200]
    assert len(answered) == 5
    assert {response.json()["results"][0]["label"] for response in answered} == {"dog"}


def test_the_deadline_ends_a_request_and_what_it_left_waiting_is_not_computed() -> None:
    engine = KeywordEngine()
    with running(engine) as served, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        engine.entered.clear()
        blocking = pool.submit(served.predict, "it purrs")
        assert engine.entered.wait(10)
        late = served.predict("it barks", deadline_s=0.2)
        assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
        assert served.service.models.all()[0].lane.waiting_documents == 0
        engine.gate.set()
        assert blocking.result().status_code == 200
    assert ["it barks"] not in engine.batches


def test_a_caller_that_leaves_takes_its_documents_out_of_the_queue() -> None:
    engine = KeywordEngine()
    with running(engine) as served, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        engine.entered.clear()
        blocking = pool.submit(served.predict, "it purrs")
        assert engine.entered.wait(10)
        lane = served.service.models.all()[0].lane
        body = json.dumps({"documents": ["it barks", "it sings"]}).encode()
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            wait_until(lambda: lane.waiting_documents == 2)
        wait_until(lambda: lane.waiting_documents == 0)
        engine.gate.set()
        assert blocking.result().status_code == 200
        wait_until(lambda: served.service.open_requests == 0)
        assert 'status="499"' in served.get("/metrics").text
    assert engine.batches[-1] == ["it purrs"]


def test_a_key_is_needed_everywhere_but_for_health_and_its_scope_counts() -> None:
    good = {"Authorization": "Bearer good"}
    with running(KeywordEngine(), guard=OneKey()) as served, served.client() as client:
        for path in ("/v1/models", "/v1/admin/models", "/no/such/path"):
            assert client.get(path).status_code == 401
        assert client.post("/v1/predict", content=b"{").status_code == 401  # nothing is read first
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 200
        assert client.post("/v1/predict", json={"documents": "it purrs"}, headers=good).status_code == 200
        assert client.get("/v1/admin/models", headers=good).status_code == 403
        dear = client.post("/v1/predict", json={"documents": "it purrs " * 1000}, headers=good)
        assert (dear.status_code, dear.headers["Retry-After"]) == (429, "4")
        assert client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]["security"]


def test_metrics_can_be_behind_the_key() -> None:
    guard = OneKey("admin")
    with running(KeywordEngine(), guard=guard, metrics_need_key=True) as served, served.client() as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"Authorization": "Bearer good"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:99", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("evil.example", 400), ("evil.example:80", 400)],
)
def test_on_loopback_a_page_cannot_reach_the_service_through_a_name_of_its_own(
    shared: Running, host: str, status: int
) -> None:
    with shared.client() as client:
        assert client.get("/healthz", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b'{"documents": "a", "threshold": 0.1}', "application/json", 422, "invalid-request"),
        (b'{"documents": 5}', "application/json", 422, "invalid-request"),
        (b'{"documents": []}', "application/json", 422, "invalid-request"),
        (b'{"documents": "\\ud800"}', "application/json", 422, "invalid-request"),
        (b'{"documents": "a", "deadline_s": 0}', "application/json", 422, "invalid-request"),
        (b'{"documents": "a", "deadline_s": NaN}', "application/json", 422, "invalid-request"),
        (b'{"documents": "a", "\\ud800": 1}', "application/json", 422, "invalid-request"),
        (b'{"documents": "a", "model": "other"}', "application/json", 404, "model_not_found"),
        (b'{"documents": ', "application/json", 400, "not-json"),
        (b"\xff", "application/json", 400, "not-utf-8"),
        (b"[" * 500, "application/json", 400, "json-too-deep"),
        (b'{"documents": "a"}', "text/plain", 415, "not-json"),
        (b"", "application/json", 422, "invalid-request"),
        (b'{"documents": "' + b"a" * 3000 + b'"}', "application/json", 413, "body-too-large"),
    ],
)
def test_what_cannot_be_read_is_refused_as_a_problem_that_repeats_none_of_it(
    shared: Running, body: bytes, kind: str, status: int, code: str
) -> None:
    with shared.client() as client:
        response = client.post("/v1/predict", content=body, headers={"Content-Type": kind})
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert problem["type"] == f"urn:tuneloop:problem:{code}"
    assert "ud800" not in response.text


def test_too_many_documents_and_wrong_routes_and_methods_are_problems_too(shared: Running) -> None:
    assert shared.predict(["a"] * 5).json()["code"] == "too-many-documents"
    with shared.client() as client:
        assert client.get("/v1/predict").json()["code"] == "method-not-allowed"
        assert client.get("/v1/predict").headers["Allow"] == "POST"
        assert client.get("/docs").json()["code"] == "no-such-route"
        assert "access-control-allow-origin" not in client.get("/healthz", headers={"Origin": "http://x"}).headers


@pytest.fixture(scope="module")
def shared() -> Any:
    """A service that the tests above only ask."""
    with running(KeywordEngine(), max_body_bytes=3000, max_documents=4) as served:
        yield served


def test_a_failure_of_the_service_itself_is_a_problem_without_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ListLog):
        def record(self, entries: Sequence[Entry]) -> None:
            raise ValueError("secret text")

    with running(KeywordEngine(), log=Broken()) as served:
        response = served.predict("it purrs")
    assert (response.status_code, response.json()["code"]) == (500, "internal-error")
    assert "secret" not in response.text + caplog.text
    assert "ValueError at " in caplog.text
    assert threading.active_count() < 50


def test_an_engine_that_answers_too_few_documents_fails_these_and_the_next_are_answered() -> None:
    class Forgetful(KeywordEngine):
        def predict(self, texts: Sequence[str], *more: Any) -> list[Prediction]:
            answers = super().predict(texts, *more)
            return answers[:-1] if "forget me" in texts else answers

    with running(Forgetful()) as served:
        forgotten = served.predict("forget me")
        assert (forgotten.status_code, forgotten.json()["code"]) == (500, "not-answered")
        assert served.predict("it barks").json()["results"][0]["label"] == "dog"
