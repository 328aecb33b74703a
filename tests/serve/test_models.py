from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import DEFAULT, opening, running
from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ConfigError, ModelError, StorageError
from tuneloop.infer.calibrate import Calibrator
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.serve.batching import BatchLimits
from tuneloop.serve.models import OpenedModel, ServedModels
from tuneloop.serve.problems import Problem

OTHER = ServedModelConfig(name="other", run="v2")


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fails after 10 s."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_switch_under_load_drops_no_request_and_every_answer_names_the_version_that_gave_it() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine()}
    stopping, answers = threading.Event(), []

    with running(engines) as served, served.client() as admin, ThreadPoolExecutor(6) as pool:

        def ask() -> None:
            with served.client() as client:
                while not stopping.is_set():
                    answers.append(client.post("/v1/predict", json={"documents": ["it barks", "it purrs"]}))

        asking = [pool.submit(ask) for _ in range(6)]
        wait_until(lambda: len(answers) > 30)
        switched = admin.post("/v1/admin/models", json={"name": "default", "run": "v2"})
        assert engines["v1"].is_closed
        count = len(answers)
        wait_until(lambda: len(answers) > count + 30)
        stopping.set()
        for future in asking:
            future.result()
    assert switched.status_code == 200
    assert [model["version"] for model in switched.json()["models"]] == ["v2"]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["version"] for answer in answers} == {"v1", "v2"}
    assert {one["label"] for answer in answers for one in answer.json()["results"]} == {"dog", "cat"}
    assert engines["v1"].batches
    assert engines["v2"].batches


def test_a_request_that_began_with_the_old_version_is_answered_by_it() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine()}
    with running(engines) as served, ThreadPoolExecutor(2) as pool:
        engines["v1"].gate.clear()
        engines["v1"].entered.clear()
        old = pool.submit(served.predict, "it purrs")
        assert engines["v1"].entered.wait(10)
        switching = pool.submit(served.service.models.switch, ServedModelConfig(name="default", run="v2"))
        wait_until(lambda: served.get("/v1/models").json()["data"][0]["version"] == "v2")
        assert served.predict("it purrs").json()["version"] == "v2"
        assert not engines["v1"].is_closed
        engines["v1"].gate.set()
        assert old.result().json()["version"] == "v1"
        switching.result()
        assert engines["v1"].is_closed


def test_a_version_that_cannot_be_opened_or_answers_nothing_leaves_the_old_one_in_service() -> None:
    dead = KeywordEngine()
    dead.is_dead = True
    engines = {"v1": KeywordEngine(), "dead": dead}

    def open_model(source: ServedModelConfig) -> OpenedModel:
        if source.run not in engines:
            raise ModelError("there is no such run", where="run", hint="Train one.")
        return OpenedModel(engines[source.run], source.run)

    models = ServedModels(open_model, BatchLimits())
    models.open_all([DEFAULT])
    with pytest.raises(ModelError):
        models.switch(ServedModelConfig(name="default", run="missing"))
    with pytest.raises(ModelError):
        models.switch(ServedModelConfig(name="default", run="dead"))
    assert dead.is_closed
    with models.using(None) as model:
        assert (model.version, model.engine.is_alive()) == ("v1", True)
    models.close()
    assert engines["v1"].is_closed


def test_the_admin_route_says_why_a_switch_fails_and_changes_nothing() -> None:
    with running({"v1": KeywordEngine()}) as served, served.client() as client:
        alias = client.post("/v1/admin/models", json={"name": "again", "alias_of": "nothing"})
        both = client.post("/v1/admin/models", json={"name": "again", "run": "a", "export": "b"})
        assert (alias.status_code, alias.json()["code"]) == (409, "cannot-switch")
        assert both.status_code == 422
        assert served.predict("it purrs").json()["version"] == "v1"


def test_names_and_aliases_find_their_models_and_an_alias_follows_a_switch() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine(), "v3": KeywordEngine()}
    alias = ServedModelConfig(name="stable", alias_of="default")
    with running(engines, (DEFAULT, OTHER, alias)) as served, served.client() as client:
        versions = [served.predict("it purrs", model=name).json()["version"] for name in (None, "other", "stable")]
        assert versions == ["v1", "v2", "v1"]
        client.post("/v1/admin/models", json={"name": "default", "run": "v3"})
        assert served.predict("it purrs", model="stable").json()["version"] == "v3"
        moved = client.post("/v1/admin/models", json={"name": "stable", "alias_of": "other"}).json()["models"]
        assert {model["name"]: model["aliases"] for model in moved} == {"default": [], "other": ["stable"]}
        assert served.predict("it purrs", model="stable").json()["version"] == "v2"


def test_models_that_share_weights_share_a_thread_and_are_never_computed_together() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine()}
    models = ServedModels(lambda source: OpenedModel(engines[source.run or ""], "x", weights="base"), BatchLimits())
    models.open_all([DEFAULT, OTHER])
    first, second = models.all()
    assert first.lane is second.lane
    models.switch(ServedModelConfig(name="default", run="v2"))
    assert [model.lane for model in models.all()] == [second.lane, second.lane]
    models.close()


def test_an_alias_of_nothing_and_a_name_that_is_taken_are_refused() -> None:
    models = ServedModels(opening({"v1": KeywordEngine()}), BatchLimits())
    models.open_all([DEFAULT])
    with pytest.raises(ConfigError, match="no model 'nothing'"):
        models.set_alias("x", "nothing")
    with pytest.raises(ConfigError, match="a model itself"):
        models.set_alias("default", "default")
    with pytest.raises(Problem), models.using("unknown"):
        pass
    models.close()


def test_the_policy_decides_probability_and_route() -> None:
    policy = ReviewPolicy(Calibrator("none"), threshold=0.99)
    with running(KeywordEngine(), policy=policy) as served:
        answer = served.predict("it purrs").json()
    assert answer["calibrated"]
    assert (answer["results"][0]["route"], answer["results"][0]["reason"]) == ("review", "unsure")


def test_a_switch_is_remembered_by_its_whole_id_or_the_caller_hears_that_it_is_not() -> None:
    engines = {"v1": KeywordEngine(), "v2": KeywordEngine(), "v3": KeywordEngine()}
    remembered: list[tuple[str, str | None, str | None, str]] = []

    def remember(source: ServedModelConfig, caller: str) -> None:
        if source.run == "v3":
            raise StorageError("the store is away", where="x", hint="y")
        remembered.append((source.name, source.run, source.alias_of, caller))

    with running(engines) as served, served.client() as client:
        served.service.remember_switch = remember
        client.post("/v1/admin/models", json={"name": "default", "run": "v2"})
        client.post("/v1/admin/models", json={"name": "same", "alias_of": "default"})
        lost = client.post("/v1/admin/models", json={"name": "default", "run": "v3"})
        assert (lost.status_code, lost.json()["code"]) == (503, "switch-not-kept")
        assert served.predict("it purrs").json()["version"] == "v3"
    assert remembered == [("default", "v2", None, "local"), ("same", None, "default", "local")]


def test_an_engine_that_dies_comes_back_as_the_version_that_it_was() -> None:
    asked: list[str | None] = []

    def open_model(source: ServedModelConfig) -> OpenedModel:
        asked.append(source.run)
        return OpenedModel(KeywordEngine(), "aaaa" if len(asked) == 1 else "bbbb")

    models = ServedModels(open_model, BatchLimits())
    models.open_all([ServedModelConfig(name="default")])
    (model,) = models.all()
    assert isinstance(model.engine, KeywordEngine)
    model.engine.is_dead = True
    wait_until(lambda: len(asked) == 2)
    models.close()
    assert asked == [None, "aaaa"]
