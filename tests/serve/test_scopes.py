from __future__ import annotations

import pytest

from tuneloop.serve.scopes import PathScopes, needs

PATHS: dict[str, dict[str, dict[str, str]]] = {
    "/open": {"get": {}},
    "/v1/models": {"get": needs("predict")},
    "/v1/models/{name}": {"get": needs("predict"), "delete": needs("predict")},
    "/v1/a.b": {"post": needs("admin")},
}


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/open", None),
        ("/v1/models", "predict"),
        ("/v1/models/any-name", "predict"),
        ("/v1/models/any/more", None),
        ("/v1/models/", None),
        ("/v1/a.b", "admin"),
        ("/v1/a-b", None),
    ],
)
def test_a_path_needs_what_its_routes_say(path: str, scope: str | None) -> None:
    assert PathScopes(PATHS, {"/open"}).of(path) == scope


def test_a_route_that_says_nothing_and_is_not_listed_as_open_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="/open"):
        PathScopes(PATHS, ())
    with pytest.raises(ValueError, match="/v1/x"):
        PathScopes({"/v1/x": {"get": needs("predict"), "post": needs("admin")}}, ())
