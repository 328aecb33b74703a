"""Limits against a real server on loopback, with sockets where a well-behaved client could not do what is tested."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import Running, running
from tuneloop.config.protection import LimitsConfig
from tuneloop.serve.limits import check_json
from tuneloop.serve.problems import Problem

MIB = 1024 * 1024
LIMITS = LimitsConfig(
    max_held_bytes=2 * MIB,
    body_timeout_s=0.5,
    header_timeout_s=0.5,
    max_header_bytes=4096,
    max_json_depth=8,
    max_json_values=1000,
)
GOOD = b'{"documents": "it purrs"}'


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(KeywordEngine(), limits=LIMITS, max_body_bytes=MIB) as started:
        yield started


def connect(service: Running) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(*headers: str, path: str = "/v1/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def read_all(opened: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    received = b""
    try:
        while chunk := opened.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def post(service: Running, body: bytes, **headers: str) -> httpx.Response:
    with service.client() as client:
        return client.post("/v1/predict", content=body, headers={"Content-Type": "application/json", **headers})


def problem_of(received: bytes) -> Any:
    return json.loads(received.partition(b"\r\n\r\n")[2])


def still_answers(service: Running) -> None:
    assert service.predict("it purrs").json()["results"][0]["label"] == "cat"


def test_a_body_that_says_it_is_100_mb_is_refused_before_any_of_it_is_sent(service: Running) -> None:
    with connect(service) as opened:
        opened.sendall(head("Content-Length: 104857600"))
        received = read_all(opened)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in received.lower()
    assert problem_of(received)["code"] == "body-too-large"
    still_answers(service)


def test_a_body_of_100_mb_without_a_length_is_cut_off_soon_after_the_limit(service: Running) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    with connect(service) as opened:
        opened.sendall(head("Transfer-Encoding: chunked"))
        try:
            while sent < 100 * MIB:
                opened.sendall(chunk)
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert MIB <= sent < 20 * MIB  # what fits into the buffers of both sides
    still_answers(service)


def test_a_body_just_within_the_limit_without_a_length_is_answered(service: Running) -> None:
    body = GOOD + b" " * (MIB - len(GOOD))
    with connect(service) as opened:
        opened.sendall(head("Transfer-Encoding: chunked", "Connection: close"))
        opened.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert read_all(opened).startswith(b"HTTP/1.1 200 ")
        assert post(service, body + b" ").status_code == 413


def test_a_body_that_drips_in_is_cut_off(service: Running) -> None:
    with connect(service) as opened:
        opened.sendall(head(f"Content-Length: {len(GOOD)}") + GOOD[:5])
        received = read_all(opened)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert problem_of(received)["code"] == "body-too-slow"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/pre", b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: "])
def test_headers_that_do_not_come_or_drip_in_are_cut_off(service: Running, sent: bytes) -> None:
    with connect(service) as opened:
        ends = time.monotonic() + 20
        opened.settimeout(0.05)
        opened.sendall(sent)
        while time.monotonic() < ends:
            try:
                if not opened.recv(100):
                    break
            except TimeoutError:
                if sent:
                    drip(opened)
            except ConnectionResetError:
                break
        assert time.monotonic() < ends


def drip(opened: socket.socket) -> None:
    try:
        opened.sendall(b"a")
    except (BrokenPipeError, ConnectionResetError):
        return


def test_an_unused_keep_alive_connection_outlives_the_time_for_headers(service: Running) -> None:
    with service.client() as client:
        assert client.post("/v1/predict", json={"documents": "it purrs"}).status_code == 200
        time.sleep(0.8)
        assert client.post("/v1/predict", json={"documents": "it barks"}).status_code == 200


@pytest.mark.parametrize("headers", [[f"X-Long: {'x' * 5000}"], [f"X-{number}: {'x' * 50}" for number in range(100)]])
def test_headers_that_are_too_long_are_refused(service: Running, headers: list[str]) -> None:
    with connect(service) as opened:
        opened.sendall(head(*headers, f"Content-Length: {len(GOOD)}") + GOOD)
        assert read_all(opened).startswith(b"HTTP/1.1 400 ")
    with connect(service) as opened:  # the header never ends
        try:
            opened.sendall(head().rstrip() + b"\r\nX-Long: " + b"x" * 300_000)
        except (BrokenPipeError, ConnectionResetError):
            return
        assert read_all(opened)[:13] in (b"HTTP/1.1 400 ", b"")
    still_answers(service)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"documents": "\xff\xfe"}', "not-utf-8"),
        ('{"documents": "it purrs"}'.encode("utf-16"), "not-utf-8"),
        (b'{"documents": ' + b"[" * 100_000, "json-too-deep"),
        (b'{"a":' * 50_000, "json-too-deep"),
        (b'{"documents": [' + b"[]," * 300_000 + b"[]]}", "json-too-many-values"),
        (b'{"documents": [' + b"1," * 300_000 + b"1]}", "json-too-many-values"),
        (b'{"documents": "it purrs"', "not-json"),
        (b'"' + b'\\"' * 400_000, "not-json"),
        (b'{"documents": ' + b"9" * 10_000 + b"}", "unreadable"),
    ],
)
def test_a_body_that_is_a_bomb_or_no_json_is_refused_as_such(service: Running, body: bytes, code: str) -> None:
    answer = post(service, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    still_answers(service)


def test_brackets_within_documents_are_no_nesting(service: Running) -> None:
    assert service.predict('it purrs [[[[[[[[[[ {{{{{{{{{{ "\\" ,,,' + "[" * 2000).status_code == 200


def test_bodies_under_way_together_are_bounded_and_given_back(service: Running) -> None:
    half = MIB // 2 + 300_000
    with connect(service) as one, connect(service) as two:
        for opened in (one, two):
            opened.sendall(head(f"Content-Length: {MIB}") + b" " * half)
        time.sleep(0.1)
        refused = post(service, b" " * (MIB - 10))
        assert (refused.status_code, refused.json()["code"]) == (503, "bodies-full")
        assert refused.headers["Retry-After"] == "2"
        assert read_all(one).startswith(b"HTTP/1.1 408 ")
        assert read_all(two).startswith(b"HTTP/1.1 408 ")
    still_answers(service)
    assert post(service, GOOD + b" " * (MIB - 100)).status_code == 200


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(JSON, st.integers(0, 6), st.booleans())
def test_exactly_what_is_deeper_than_allowed_is_refused(value: Any, max_depth: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        check_json(body, max_depth=max_depth, max_values=10**6)
    except Problem as problem:
        assert problem.code == ("json-too-deep" if depth_of(value) > max_depth else "not-utf-8")
    else:
        assert depth_of(value) <= max_depth


@given(st.binary(max_size=200))
def test_any_bytes_are_either_passed_on_or_refused(body: bytes) -> None:
    try:
        check_json(body, max_depth=3, max_values=20)
    except Problem as problem:
        assert problem.status == 400
