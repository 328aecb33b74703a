"""A trained run beside its engines and services: the whole command, with servers on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished
from tests.train.projects import config_of, make_project, write_yaml
from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.errors import ArtifactError, UsageError
from tuneloop.export.parity import asked
from tuneloop.export.parity.service import ServiceClient
from tuneloop.export.parity.stored import KIND, PARITY, read_parity
from tuneloop.infer.engines.opening import open_engine, task_of_model
from tuneloop.loop import stages
from tuneloop.loop.parity import check_parity_of, find_compared
from tuneloop.progress import SILENT
from tuneloop.records import Prediction

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A configuration whose run is trained, and its file."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    config = config_of(folder)
    store = ArtifactStore(config.store.root / "artifacts")
    stages.prepare(config, store, SILENT)
    stages.train(config, store, SILENT)
    return config, write_yaml(config, folder / "tuneloop.yaml")


@pytest.fixture
def store(project: tuple[Config, Path]) -> ArtifactStore:
    return ArtifactStore(project[0].store.root / "artifacts")


@pytest.fixture
def run(project: tuple[Config, Path], store: ArtifactStore) -> Artifact:
    return stages.find_run(project[0], stages.find_dataset(project[0], store), store, SILENT)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "ALONE", 1)


class FakeService:
    """Answers /v1/predict with what `answer` says of each document; `script` statuses come first."""

    def __init__(self, answer: Callable[[str], Prediction]) -> None:
        self.answer = answer
        self.script: list[tuple[int, dict[str, str]]] = []
        self.received: list[tuple[str | None, dict[str, Any]]] = []
        self.changes: dict[str, Any] = {}
        self.url = ""

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        results = [self._result(index, self.answer(text)) for index, text in enumerate(body["documents"])]
        content = {"request_id": "1", "model": "default", "version": "v", "calibrated": False, "results": results}
        return content | self.changes

    def _result(self, index: int, answer: Prediction) -> dict[str, Any]:
        found = {"label": answer.label, "probability": answer.probability, "entities": None}
        return {"index": index, **found, "route": answer.route, "reason": answer.reason, "error": None}


@pytest.fixture
def served(project: tuple[Config, Path], run: Artifact) -> Iterator[FakeService]:
    """A service on loopback that answers as the run does."""
    engine = open_engine(project[0], "transformers", run=run, progress=SILENT)
    fake = FakeService(lambda text: engine.predict([text])[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            fake.received.append((self.headers.get("Authorization"), body))
            status, headers = fake.script.pop(0) if fake.script else (200, {})
            content = fake.reply(body) if status == 200 else {"detail": f"no: {self.headers.get('Authorization')}"}
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()
    engine.close()


def test_the_same_run_in_another_engine_and_behind_a_url_is_within_its_tolerance(
    project: tuple[Config, Path], tuneloop: Run, served: FakeService
) -> None:
    done = tuneloop("parity", "transformers", served.url, "--config", project[1], "--json")
    found = json.loads(done.out)
    assert done.code == 0, done.out
    assert found["within_tolerance"] is True
    engine, service_result = found["results"]
    assert engine["prompts"]["same_tokens"] == engine["items"]
    assert service_result["prompts"]["same_tokens"] is None
    assert service_result["probability_difference"]["largest"] < 1e-3
    assert "does not tell its prompts" in service_result["notes"][0]


def test_a_service_that_answers_otherwise_is_shown_and_ends_with_exit_code_4(
    project: tuple[Config, Path], tuneloop: Run, served: FakeService, store: ArtifactStore
) -> None:
    served.answer = lambda text: Prediction(label="cat", probability=0.5)
    done = tuneloop("parity", served.url, "--config", project[1])
    assert done.code == 4
    assert "BEYOND" in done.out
    assert f"Beyond tolerance: {served.url}: another label on " in done.out
    artifact = [one for one in store if one.kind == KIND][-1]
    assert artifact.summary["beyond_tolerance"] == [served.url]
    assert read_parity(artifact.path)[0]["within_tolerance"] is False
    assert (artifact.path / PARITY).exists()
    assert store.get(artifact.parents["run"]).kind == "run"


def test_a_dry_run_asks_nobody(project: tuple[Config, Path], tuneloop: Run, served: FakeService) -> None:
    done = tuneloop("parity", served.url, "vllm", "--config", project[1], "--dry-run", "--json")
    assert json.loads(done.out)["compared"] == [served.url, "vllm"]
    assert served.received == []


def test_two_checks_of_one_url_are_two_artifacts(
    project: tuple[Config, Path], run: Artifact, store: ArtifactStore, served: FakeService
) -> None:
    first, second = (check_parity_of(project[0], run, [served.url], store, SILENT).artifact for _ in range(2))
    assert first.id != second.id


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["mergd"], UsageError, "no form, engine or address 'mergd'.*Did you mean 'merged'"),
        (["merged"], ArtifactError, "was not exported as merged yet"),
        (["transformers", "transformers"], UsageError, "twice"),
        ([], UsageError, "has no export yet"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_opened(
    project: tuple[Config, Path], run: Artifact, store: ArtifactStore, names: list[str], kind: Any, message: str
) -> None:
    with pytest.raises(kind, match=message):
        find_compared(project[0], run, names, store, SILENT)


def test_the_key_goes_to_the_service_and_into_no_message(
    project: tuple[Config, Path], run: Artifact, served: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOP_API_KEY", "tl_1_secret")
    served.script = [(403, {})]
    client = ServiceClient(f"{served.url}/v1#claims", task_of_model(run, None))
    with pytest.raises(UsageError) as refused:
        client.predict(["a"])
    assert served.received[0] == ("Bearer tl_1_secret", {"documents": ["a"], "model": "claims"})
    assert "secret" not in str(refused.value)
    assert "scope predict" in refused.value.hint
    client.close()


def test_a_busy_service_is_asked_again_when_it_says(
    project: tuple[Config, Path], run: Artifact, served: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tuneloop.export.parity.service.time.sleep", waited.append)
    served.script = [(503, {"Retry-After": "7"}), (429, {"Retry-After": "soon"})]
    client = ServiceClient(served.url, task_of_model(run, None))
    assert len(client.predict(["a document", "another"])) == 2
    assert waited == [7.0, 1.0]
    client.close()


@pytest.mark.parametrize(
    "changes",
    [{"results": []}, {"results": None}, {"version": None, "results": [{"index": 0, "error": {"code": "x"}}]}],
)
def test_what_does_not_answer_as_our_service_does_is_named(
    project: tuple[Config, Path], run: Artifact, served: FakeService, changes: dict[str, Any]
) -> None:
    from tuneloop.errors import ModelError

    served.changes = changes
    client = ServiceClient(served.url, task_of_model(run, None))
    with pytest.raises(ModelError):
        client.predict(["a document"])
    client.close()


def test_nobody_at_the_address_is_said_with_the_address(project: tuple[Config, Path], tuneloop: Run) -> None:
    done = tuneloop("parity", "http://127.0.0.1:9", "--config", project[1])
    assert done.code == 1
    assert "cannot be reached" in done.err
    assert "127.0.0.1:9" in done.err
