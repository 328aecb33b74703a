"""What /openapi.json promises, tried with generated requests against a real service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import DEFAULT, Running, running


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(KeywordEngine(), (DEFAULT,)) as service:
        yield service


@pytest.fixture(scope="module")
def api(served: Running) -> Any:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


POSTS = ("/v1/predict", "/v1/chat/completions", "/v1/completions", "/v1/admin/models")
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [*(("POST", path, mode) for path in POSTS for mode in (GOOD, BAD)), ("GET", "/v1/models/{name}", GOOD)],
)
def test_every_answer_is_one_that_the_description_promises(
    api: Any, method: str, path: str, mode: GenerationMode
) -> None:
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        if path == "/v1/predict" and mode is GOOD:
            case.body.pop("deadline_s", None)  # 5e-324 s are valid, and rightly answered with 504
        case.call_and_validate()

    check()


@pytest.mark.parametrize("path", ["/v1/models", "/v1/admin/models", "/healthz", "/readyz", "/metrics"])
def test_routes_without_parameters_answer_as_described(api: Any, path: str) -> None:
    api[path]["GET"].Case().call_and_validate()


def test_the_description_names_every_route_and_shows_examples(served: Running) -> None:
    content = served.get("/openapi.json").json()
    assert set(content["paths"]) == {
        "/v1/predict",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/admin/models",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    schemas = content["components"]["schemas"]
    assert schemas["PredictRequest"]["examples"]
    assert schemas["PredictResponse"]["examples"]
    assert "HTTPValidationError" not in str(content)
    assert "securitySchemes" not in content["components"]
