from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import running
from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ConfigError
from tuneloop.serve import watching
from tuneloop.serve.lifecycle import bind, url_of


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return when the condition holds; fails after so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_drain_answers_what_was_accepted_says_unready_and_takes_nothing_new() -> None:
    engine = KeywordEngine()
    with running(engine, drain_delay_s=0.5) as served, ThreadPoolExecutor(4) as pool:
        engine.gate.clear()
        engine.entered.clear()
        futures = [pool.submit(served.predict, f"it barks {n}") for n in range(4)]
        assert engine.entered.wait(10)
        wait_until(lambda: served.service.open_requests == 4)
        served.stop()
        wait_until(lambda: served.service.is_draining)
        unready = served.get("/readyz")
        assert (unready.status_code, unready.json()["reasons"]) == (503, ["the service is stopping"])
        assert unready.headers["Connection"] == "close"
        assert served.get("/healthz").status_code == 200

        def is_refused() -> bool:
            try:
                served.get("/healthz")
            except httpx.ConnectError:
                return True
            return False

        wait_until(is_refused)
        engine.gate.set()
        assert [future.result().status_code for future in futures] == [200] * 4
        assert served.ended.wait(10)
    assert engine.is_closed


def test_a_drain_gives_up_what_takes_too_long() -> None:
    engine = KeywordEngine()
    with running(engine, drain_s=1) as served, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        engine.entered.clear()
        stuck = pool.submit(served.predict, "it barks")
        assert engine.entered.wait(10)
        served.stop()
        given_up = stuck.result(20)
        assert (given_up.status_code, given_up.json()["code"]) == (503, "closing")
        engine.gate.set()
        assert served.ended.wait(10)


def test_a_drain_that_is_cut_short_tells_those_who_wait() -> None:
    engine = KeywordEngine()
    with running(engine, drain_s=600, drain_delay_s=600) as served, ThreadPoolExecutor(1) as pool:
        engine.gate.clear()
        engine.entered.clear()
        stuck = pool.submit(served.predict, "it barks")
        assert engine.entered.wait(10)
        served.stop()
        wait_until(lambda: served.service.is_draining)
        assert not stuck.done()
        served.hurry()
        given_up = stuck.result(20)
        assert (given_up.status_code, given_up.json()["code"]) == (503, "closing")
        engine.gate.set()
        assert served.ended.wait(10)


def test_a_dead_engine_is_noticed_within_a_second_restarted_and_no_accepted_document_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE_S", 0.05)
    engines = {"v1": KeywordEngine()}
    with running(engines) as served, ThreadPoolExecutor(1) as pool:
        first, second = engines["v1"], KeywordEngine()
        first.gate.clear()
        first.entered.clear()
        asked = pool.submit(served.predict, "it barks")
        assert first.entered.wait(10)
        broken = engines.pop("v1")  # so that the first attempts to start it again fail
        first.is_dead = True
        wait_until(lambda: served.get("/readyz").status_code == 503, seconds=2)
        assert served.get("/readyz").json()["reasons"] == ["the engine of model default is down"]
        assert served.get("/healthz").status_code == 200
        first.gate.set()
        time.sleep(0.2)
        engines["v1"] = second
        wait_until(lambda: served.get("/readyz").status_code == 200)
        assert asked.result().json()["results"][0]["label"] == "dog"
        assert second.batches == [["it barks"]]
        assert broken.is_closed


def test_a_switch_ends_the_watch_of_the_old_engine() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine()}
    with running(engines) as served:
        served.service.models.switch(ServedModelConfig(name="default", run="v2"))
        wait_until(lambda: sum(thread.name == "tuneloop-watch" for thread in threading.enumerate()) == 1)
        engines["v1"].is_dead = True
        assert served.get("/readyz").status_code == 200
    wait_until(lambda: not any(thread.name.startswith("tuneloop-") for thread in threading.enumerate()))


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigError, match="cannot listen there") as refused:
            bind("127.0.0.1", taken.getsockname()[1])
        assert "--port" in refused.value.hint
    with pytest.raises(ConfigError):
        bind("203.0.113.7", 0)


def test_the_url_names_the_port_that_was_found() -> None:
    with bind("localhost", 0) as listener:
        assert url_of(listener).startswith("http://")
        assert not url_of(listener).endswith(":0")
