"""Uploads, to a Hub of our own on loopback that speaks the real one's protocol for small files."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.export.targets.forms import make_form
from tuneloop.errors import NetworkError, UsageError
from tuneloop.export.targets import hub
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.export.targets.write import plan, write


class FakeHub:
    """What was created and committed. `is_public` is a repository that was there before, for everybody to read."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.committed: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.is_public = False
        self.fails = False
        self.url = ""

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        if self.fails:
            return 403, {"error": "no"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return (409 if self.is_public else 200), {"url": f"{self.url}/me/claims", "name": "me/claims"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            wanted = json.loads(body)["files"]
            return 200, {
                "files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in wanted]
            }
        if path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.committed[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return 200, {"commitOid": "c" * 40, "commitUrl": f"{self.url}/me/claims/commit/c"}
        if path.startswith("/api/models/me/claims"):
            return 200, {"_id": "1", "id": "me/claims", "private": not self.is_public, "siblings": []}
        return 404, {"error": path}


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    found = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def _reply(self) -> None:
            found.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = found.answer(self.path.partition("?")[0], body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_form_is_uploaded_privately_with_its_weights_at_the_root(tmp_path: Path, fake: FakeHub) -> None:
    form = make_form(tmp_path)
    record = hub.upload(form, "me/claims", endpoint=fake.url, token="hf_secret")
    assert fake.created[0]["visibility"] == "private"
    assert set(fake.committed) == {
        "README.md", "chat_template.jinja", "config.json", "form.json", "model.safetensors", "task.json",
    }  # fmt: skip
    assert fake.committed["model.safetensors"] == (form.path / "model.safetensors").read_bytes()
    assert fake.tokens == {"Bearer hf_secret"}
    assert (record["private"], record["commit"], record["url"]) == (True, "c" * 40, f"{fake.url}/me/claims")
    assert "hf_secret" not in json.dumps(record)


def test_our_model_card_wins_over_the_one_that_peft_writes(tmp_path: Path, fake: FakeHub) -> None:
    hub.upload(make_form(tmp_path, "adapter"), "me/claims", endpoint=fake.url, token="hf_secret")
    assert fake.committed["README.md"].startswith(b"---\nlicense: apache-2.0")


def test_the_listing_names_what_would_be_sent_and_sends_nothing(tmp_path: Path, fake: FakeHub) -> None:
    form = make_form(tmp_path)
    listed = plan("hub", form, TargetSettings(repo="me/claims"))
    assert listed["model.safetensors"] == 64
    assert "manifest.json" not in listed
    assert fake.created == []


def test_nothing_is_sent_to_a_repository_that_is_public_already(tmp_path: Path, fake: FakeHub) -> None:
    fake.is_public = True
    with pytest.raises(UsageError, match="public already"):
        hub.upload(make_form(tmp_path), "me/claims", endpoint=fake.url, token="hf_secret")
    assert fake.committed == {}


def test_public_is_asked_for_by_name(tmp_path: Path, fake: FakeHub) -> None:
    record = hub.upload(make_form(tmp_path), "me/claims", public=True, endpoint=fake.url, token="hf_secret")
    assert fake.created[0].get("visibility") == "public"
    assert record["private"] is False


def test_a_refusal_of_the_hub_is_explained_without_the_token(tmp_path: Path, fake: FakeHub) -> None:
    fake.fails = True
    with pytest.raises(NetworkError) as failed:
        hub.upload(make_form(tmp_path), "me/claims", endpoint=fake.url, token="hf_secret")
    assert "HF_TOKEN" in failed.value.hint
    assert "hf_secret" not in str(failed.value)


@pytest.mark.parametrize("repo", ["", "claims", "a/b/c", "me/.."])
def test_a_name_that_is_no_repository_is_refused(tmp_path: Path, fake: FakeHub, repo: str) -> None:
    with pytest.raises(UsageError):
        hub.upload(make_form(tmp_path), repo, endpoint=fake.url, token="hf_secret")
    assert fake.created == []


def test_the_record_of_an_upload_is_kept_and_not_overwritten(
    tmp_path: Path, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "upload", lambda form, repo, public: {"repo": repo, "private": not public})
    form = make_form(tmp_path)
    (path,) = write("hub", form, TargetSettings(repo="me/claims"), tmp_path / "out")
    assert json.loads(path.read_text()) == {"repo": "me/claims", "private": True}
    with pytest.raises(UsageError, match="there already"):
        write("hub", form, TargetSettings(repo="me/claims"), tmp_path / "out")
