"""`tuneloop predict FILE`: files of any length, with the answers that the documents get one by one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.test_predict import CONFIG
from tests.e2e.conftest import Run, animal_rows, refusal_of
from tests.models.tiny import make_tiny_model
from tuneloop.artifacts import ArtifactStore
from tuneloop.config.load import load_config
from tuneloop.formats import read_parquet
from tuneloop.loop import stages
from tuneloop.progress import SILENT

TEXTS = [f"{row.rpartition(',')[0]} ({n})" for n in range(3) for row in animal_rows()]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained project with `big.parquet`, 180 documents. Tests that read it must not change it."""
    folder = tmp_path_factory.mktemp("batch")
    make_tiny_model(folder / "model")
    (folder / "animals.csv").write_text("\n".join(["text,label", *animal_rows()]) + "\n", encoding="utf-8")
    (folder / "tuneloop.yaml").write_text(CONFIG)
    pq.write_table(pa.table({"n": list(range(len(TEXTS))), "text": TEXTS}), folder / "big.parquet", row_group_size=50)
    config = load_config(folder / "tuneloop.yaml")
    store = ArtifactStore(config.store.root / "artifacts")
    stages.prepare(config, store, SILENT)
    stages.train(config, store, SILENT)
    stages.calibrate(config, store, SILENT)
    return folder


@pytest.fixture(autouse=True)
def _in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_a_file_is_answered_as_its_documents_are_one_by_one(tuneloop: Run, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    result = json.loads(tuneloop("predict", "big.parquet", "-o", output, "--chunk", "50", "--json").out)
    assert (result["documents"], result["resumed"], result["calibrated"]) == (180, 0, True)
    rows = lines_of(output)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["row"] for row in rows] == list(range(1, 181))
    config = load_config(Path("tuneloop.yaml"))
    store = ArtifactStore(config.store.root / "artifacts")
    predictor = stages.open_predictor(config, store, SILENT)
    run = stages.find_run(config, stages.find_dataset(config, store), store, SILENT)
    policy = stages.find_policy(config, run, store)
    assert policy is not None
    for row in rows[::20]:
        [online] = policy.apply(predictor.predict([row["text"]]))
        assert (row["label"], row["route"], row["reason"]) == (online.label, online.route, online.reason)
        assert row["probability"] == pytest.approx(online.probability, abs=1e-4)
    assert result["routes"] == {
        route: sum(row["route"] == route for row in rows) for route in {row["route"] for row in rows}
    }


def test_answers_go_beside_the_file_and_into_its_format(tuneloop: Run, tmp_path: Path) -> None:
    source = tmp_path / "inbox.parquet"
    pq.write_table(pa.table({"text": TEXTS[:20]}), source)
    done = tuneloop("predict", source)
    output = tmp_path / "inbox.answers.parquet"
    assert done.out.startswith("20 documents: ") and str(output) in done.out
    assert pq.read_table(output)["text"].to_pylist() == TEXTS[:20]
    tuneloop("predict", source, "--output", tmp_path / "same.jsonl")
    rows = pq.read_table(output).to_pylist()
    assert rows == [{**row} for row in lines_of(tmp_path / "same.jsonl")]
    (tmp_path / "notes.txt").write_text("It purrs.\nIt barks.\n")
    tuneloop("predict", tmp_path / "notes.txt")
    assert [row["text"] for row in lines_of(tmp_path / "notes.answers.jsonl")] == ["It purrs.", "It barks."]


KILLED_WHILE_NOTING = """
import os, signal, sys
from tuneloop.cli.main import run
from tuneloop.infer.batch import journal

original, calls = journal._append, []

def append(path, entry):
    calls.append(entry)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, entry)

journal._append = append
sys.exit(run(sys.argv[1:]))
"""


def test_a_process_that_is_killed_loses_one_chunk_and_ends_in_the_same_bytes(tuneloop: Run, tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    arguments = ["predict", "big.parquet", "--chunk", "20", "-o"]
    assert tuneloop(*arguments, whole).code == 0
    command = [sys.executable, "-W", "ignore", "-c", KILLED_WHILE_NOTING, *arguments, str(output)]
    killed = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not output.exists()
    done = tuneloop(*arguments, output, "--json")
    assert json.loads(done.out)["resumed"] == 60
    assert "60 of 180 documents were answered before; going on from there." in done.err
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_changed_file_or_setting_is_not_mixed_in(tuneloop: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "inbox.parquet", tmp_path / "out.jsonl"
    pq.write_table(pa.table({"text": TEXTS[:20]}), source)
    answered = []

    def stop(self: Any, *arguments: Any) -> None:
        answered.append(arguments)
        if len(answered) == 3:
            raise KeyboardInterrupt
        original(self, *arguments)

    from tuneloop.infer.batch.journal import Journal

    original: Any = Journal.keep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "keep", stop)
        stopped = tuneloop("predict", source, "-o", output, "--chunk", "4")
    assert (stopped.code, "it goes on from the last step" in stopped.err) == (130, True)
    again = ["predict", source, "-o", output, "--chunk", "4"]
    refused = refusal_of(tuneloop(*again, "--free"), after_progress=True)
    assert (refused.code, 'mode was "closed", now "free"' in refused.what) == (2, True)
    pq.write_table(pa.table({"text": TEXTS[:21]}), source)
    refused = refusal_of(tuneloop(*again), after_progress=True)
    assert (refused.code, "sha256 of the file was" in refused.what) == (2, True)
    option = next(word.strip(",") for word in refused.do.split() if word.startswith("--restart"))
    assert tuneloop(*again, option).code == 0
    assert len(lines_of(output)) == 21


def test_a_row_without_a_text_is_refused_before_anything_is_answered(tuneloop: Run, tmp_path: Path) -> None:
    source, output = tmp_path / "inbox.parquet", tmp_path / "out.jsonl"
    pq.write_table(pa.table({"text": ["It purrs."] * 1500 + [None, "It barks."]}), source)
    refused = refusal_of(tuneloop("predict", source, "-o", output))
    assert (refused.code, refused.where, list(tmp_path.iterdir())) == (3, "inbox.parquet:row 1501", [source])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.parquet"], 3, "there is no such file"),
        (["big.parquet", "-o", "out.csv"], 2, "is not .jsonl or .parquet"),
        (["big.parquet", "-o", "big.parquet"], 2, "the output is the file with the documents"),
        (["big.parquet", "--column", "txt"], 2, "no column 'txt'"),
        (["big.parquet", "--file", "big.parquet", "-o", "o.jsonl"], 2, "both documents and --file are given"),
        (["big.parquet", "--chunk", "0"], 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_three_lines(tuneloop: Run, arguments: list[str], code: int, said: str) -> None:
    refused = refusal_of(tuneloop("predict", *arguments))
    assert (refused.code, said in refused.what) == (code, True), refused


def test_a_dry_run_counts_and_writes_nothing(tuneloop: Run, project: Path) -> None:
    before = sorted(project.iterdir())
    result = json.loads(tuneloop("predict", "big.parquet", "--dry-run", "--json").out)
    assert (result["documents"], result["output"]) == (180, "big.answers.parquet")
    assert sorted(project.iterdir()) == before


def test_parquet_is_read_a_thousand_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["x"] * 5000}), tmp_path / "big.parquet")
    sizes = []
    original = pq.ParquetFile.iter_batches

    def noted(self: Any, *arguments: Any, **settings: Any) -> Any:
        for batch in original(self, *arguments, **settings):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    rows = read_parquet(tmp_path / "big.parquet").rows("big", ["text"])
    next(rows)
    assert sizes == [1024]
    assert sum(1 for _ in rows) == 4999
    assert max(sizes) == 1024
