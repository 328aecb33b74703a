"""Every route × every kind of key. The routes are those of the description, so that a new one needs an entry here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import Running, running
from tuneloop.config.protection import LogConfig, QuotaConfig
from tuneloop.config.schema import StoreConfig
from tuneloop.serve.feedback import feedback_router
from tuneloop.serve.guard import SCOPES, Scope
from tuneloop.serve.keys import create_key, revoke_key
from tuneloop.serve.protection import open_guard, open_memory
from tuneloop.store.database import open_database
from tuneloop.store.tables import ApiKey

CHAT = {"model": "default", "messages": [{"role": "user", "content": "hello"}]}


@dataclass(frozen=True)
class Rule:
    """Who may use a route (None: everybody), and a request that is answered with `answer` if they may."""

    scope: Scope | None
    body: dict[str, Any] | None = None
    answer: int = 200


RULES = {
    ("GET", "/healthz"): Rule(None),
    ("GET", "/readyz"): Rule(None),
    ("GET", "/metrics"): Rule("admin"),
    ("GET", "/openapi.json"): Rule(None),
    ("POST", "/v1/predict"): Rule("predict", {"documents": "it purrs"}),
    ("POST", "/v1/chat/completions"): Rule("predict", CHAT),
    ("POST", "/v1/completions"): Rule("predict", {"model": "default", "prompt": "hello"}),
    ("GET", "/v1/models"): Rule("predict"),
    ("GET", "/v1/models/{name}"): Rule("predict"),
    ("POST", "/v1/feedback"): Rule("feedback", {"request_id": "unknown", "label": "cat"}, 404),
    ("GET", "/v1/admin/models"): Rule("admin"),
    ("POST", "/v1/admin/models"): Rule("admin", {"name": "other", "alias_of": "default"}),
}


@dataclass(frozen=True)
class Keys:
    """A service and keys of every kind, by what they are."""

    service: Running
    secrets: dict[str, str] = field(repr=False)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    folder: Path = tmp_path_factory.mktemp("store")
    with open_database(StoreConfig(root=folder)) as database:
        secrets: dict[str, str] = {scope: create_key(database, scope, [scope]).secret for scope in SCOPES}
        secrets["revoked"] = create_key(database, "revoked", SCOPES).secret
        revoke_key(database, "revoked")
        secrets["expired"] = create_key(database, "expired", SCOPES).secret
        with database.writing() as session:
            past = datetime.now(UTC) - timedelta(seconds=1)
            session.execute(update(ApiKey).where(ApiKey.name == "expired").values(expires_at=past))
        secrets["wrong"] = secrets["admin"][:-8] + "aaaaaaaa"
        secrets["all"] = create_key(database, "all", SCOPES).secret
        secrets["limited"] = create_key(database, "limited", SCOPES, requests_per_minute=2).secret
        guard, memory = open_guard(QuotaConfig(), database), open_memory(LogConfig(), database, folder)
        with running(
            KeywordEngine(),
            guard=guard,
            log=memory.log,
            routers=[lambda service: feedback_router(service, memory.feedback)],
            metrics_need_key=True,
        ) as service:
            yield Keys(service, secrets)
        guard.close()


def ask(keys: Keys, route: tuple[str, str], key: str | None) -> httpx.Response:
    method, path = route
    headers = {} if key is None else {"Authorization": f"Bearer {keys.secrets[key]}"}
    with keys.service.client() as client:
        return client.request(method, path.replace("{name}", "default"), json=RULES[route].body, headers=headers)


def test_every_route_of_the_service_has_a_rule(keys: Keys) -> None:
    with keys.service.client() as client:
        paths = client.get("/openapi.json").json()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described | {("GET", "/openapi.json")} == set(RULES)


@pytest.mark.parametrize("route", RULES, ids=" ".join)
@pytest.mark.parametrize("key", [None, "wrong", "revoked", "expired", *SCOPES, "all"])
def test_a_route_is_open_to_the_right_scope_only(keys: Keys, route: tuple[str, str], key: str | None) -> None:
    rule = RULES[route]
    response = ask(keys, route, key)
    if rule.scope is None or key in (rule.scope, "all"):
        assert response.status_code == rule.answer, response.text
    elif key in SCOPES:
        assert response.status_code == 403
        assert f'scope="{rule.scope}"' in response.headers["WWW-Authenticate"]
    else:
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    is_openai = route[1].startswith(("/v1/chat", "/v1/comp", "/v1/models"))
    if response.status_code in (401, 403):
        assert ("error" in response.json()) == is_openai
    assert not any(secret.split("_")[2] in response.text + str(response.headers) for secret in keys.secrets.values())


@pytest.mark.parametrize("path", [path for method, path in RULES if method == "POST"])
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "application/json"), (b"{}", "application/json"), (b"\xff", "application/json"), (b"a=b", "text/plain")],
)
def test_who_may_not_ask_is_told_so_before_their_request_is_looked_at(
    keys: Keys, path: str, body: bytes, kind: str
) -> None:
    scope = RULES["POST", path].scope
    other = next(known for known in SCOPES if known != scope)
    found = {}
    with keys.service.client() as client:
        for name in ("none", "wrong", other, scope):
            key = {} if name == "none" else {"Authorization": f"Bearer {keys.secrets[str(name)]}"}
            found[name] = client.post(path, content=body, headers={"Content-Type": kind, **key}).status_code
    assert (found["none"], found["wrong"], found[other]) == (401, 401, 403)
    assert found[scope] in (400, 415, 422)


@pytest.mark.parametrize("path", ["/v1/nothing", "/docs", "/v1/predict/", "/metrics/", "/..%2fhealthz"])
def test_what_is_no_route_is_closed_as_well(keys: Keys, path: str) -> None:
    with keys.service.client() as client:
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": f"Bearer {keys.secrets['all']}"}).status_code == 404


def test_a_used_up_quota_is_429_and_says_when_to_try_again(keys: Keys) -> None:
    route = ("POST", "/v1/predict")
    assert [ask(keys, route, "limited").status_code for _ in range(3)] == [200, 200, 429]
    refused = ask(keys, route, "limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 30
    assert refused.headers["RateLimit-Policy"].startswith('"requests";q=2;w=60')
    assert ask(keys, route, "all").status_code == 200
