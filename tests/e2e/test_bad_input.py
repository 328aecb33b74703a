"""Whatever is wrong, the command says what, where, and what to do, in three lines; and doing that works.

Each case is a whole command. After the refusal nothing is in the store that was not there before.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SETTINGS, Run, artifacts, refusal_of
from tuneloop.artifacts import ArtifactStore

PREPARE = ("data", "prepare")


def lines_of(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def insert(path: str, line_number: int, line: str | bytes) -> None:
    """Put a line into a file so that it becomes line `line_number`."""
    content = Path(path).read_bytes().split(b"\n")
    content.insert(line_number - 1, line.encode() if isinstance(line, str) else line)
    Path(path).write_bytes(b"\n".join(content))


def rewrite(path: str, found: str, wanted: str) -> None:
    content = Path(path).read_text(encoding="utf-8")
    assert found in content
    Path(path).write_text(content.replace(found, wanted, 1), encoding="utf-8")


@pytest.mark.usefixtures("ready")
def test_a_missing_data_file_is_named_with_its_nearest_neighbour(tuneloop: Run) -> None:
    rewrite("tuneloop.yaml", "animals.csv", "animal.csv")
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.what, refused.where) == (3, "there is no such file", "animal.csv")
    assert artifacts() == []
    nearest = re.findall(r"Did you mean '(.+)'\?", refused.do)[0]
    assert tuneloop(*PREPARE, "--set", f"data.sources.0.path={nearest}").code == 0


@pytest.mark.usefixtures("ready")
def test_an_unknown_column_is_named_with_the_nearest_one(tuneloop: Run) -> None:
    rewrite("tuneloop.yaml", 'label: "label"', 'label: "labels"')
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (2, "animals.csv")
    assert refused.what == "there is no column 'labels'; the file has 'text', 'label'"
    assert artifacts() == []
    nearest = re.findall(r"Did you mean '(.+)'\?", refused.do)[0]
    assert tuneloop(*PREPARE, "--set", f"data.sources.0.columns.label={nearest}").code == 0


@pytest.mark.parametrize(
    ("line", "what", "where"),
    [
        (",cat", "column 'text' has no text", "animals.csv:row 7 (line 8)"),
        ("   ,cat", "column 'text' has no text", "animals.csv:row 7 (line 8)"),
        ("An animal that nobody knows,", "column 'label' has no label", "animals.csv:row 7 (line 8)"),
    ],
)
@pytest.mark.usefixtures("ready")
def test_an_incomplete_row_is_named_and_can_be_left_out(tuneloop: Run, line: str, what: str, where: str) -> None:
    insert("animals.csv", 8, line)
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.what, refused.where) == (3, what, where)
    assert artifacts() == []
    assert "data.on_invalid: drop" in refused.do
    done = tuneloop(*PREPARE, "data.on_invalid=drop", "--json")
    assert (json.loads(done.out)["summary"]["examples"], json.loads(done.out)["summary"]["rows_read"]) == (60, 61)


@pytest.mark.usefixtures("ready")
def test_a_label_outside_the_set_is_named_with_the_nearest_one(tuneloop: Run) -> None:
    insert("animals.csv", 8, "It hisses at the postman,catt")
    labels = "task.labels=[cat, dog, bird]"
    refused = refusal_of(tuneloop(*PREPARE, labels))
    assert (refused.code, refused.where) == (3, "animals.csv:row 7 (line 8)")
    assert refused.what == "label 'catt' is not in the label set of 3"
    assert refused.do.startswith("Did you mean 'cat'?")
    assert artifacts() == []
    rewrite("animals.csv", ",catt", ",cat")
    assert tuneloop(*PREPARE, labels).code == 0


@pytest.mark.usefixtures("project")
def test_a_broken_json_line_in_the_middle_is_named(tuneloop: Run) -> None:
    rows = [dict(zip(("text", "label"), line.rsplit(",", 1), strict=True)) for line in lines_of("animals.csv")[1:]]
    lines = [json.dumps(row) for row in rows]
    Path("animals.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert tuneloop("init", "--data", "animals.jsonl").code == 0
    insert("animals.jsonl", 31, '{"text": "cut in the mid')
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (3, "animals.jsonl:line 31")
    assert refused.what.startswith("invalid JSON")
    assert "cut in the mid" in refused.what
    assert "remove this line" in refused.do
    assert artifacts() == []
    rewrite("animals.jsonl", '{"text": "cut in the mid\n', "")
    assert tuneloop(*PREPARE).code == 0


@pytest.mark.usefixtures("ready")
def test_a_broken_quote_in_a_csv_is_named_where_it_begins(tuneloop: Run) -> None:
    insert("animals.csv", 8, '"It said ""meow, and left,cat')
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (3, "animals.csv:line 8")
    assert "a quote is broken" in refused.what
    assert artifacts() == []
    rewrite("animals.csv", '"It said ""meow, and left,cat', '"It said ""meow"", and left",cat')
    assert tuneloop(*PREPARE).code == 0


@pytest.mark.skipif(shutil.which("iconv") is None, reason="the advice is an iconv command")
@pytest.mark.usefixtures("ready")
def test_bytes_that_are_not_utf_8_come_with_the_command_that_converts_them(tuneloop: Run) -> None:
    insert("animals.csv", 8, "It drinks café au lait,cat".encode("cp1252"))
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (3, "animals.csv:line 8")
    assert "byte 0xe9 is not UTF-8 (byte 14 of the line" in refused.what
    assert artifacts() == []
    command = re.findall(r"`(.+)`", refused.do)[0]
    subprocess.run(command, shell=True, check=True)  # noqa: S602
    assert tuneloop(*PREPARE, "data.sources.0.path=animals.utf8.csv").code == 0


@pytest.mark.usefixtures("ready")
def test_an_empty_file_is_no_data(tuneloop: Run) -> None:
    Path("animals.csv").write_text("")
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.what, refused.where) == (3, "the file is empty", "animals.csv")
    assert artifacts() == []


@pytest.mark.parametrize(
    ("text", "what", "where", "corrected"),
    [
        ("train: {lerning_rate: 1}\n", "Did you mean 'learning_rate'?", "tuneloop.yaml:1", "train: {learning_rate: 1}"),
        ("train: {epochs: many}\n", "found 'many', expected a number", "tuneloop.yaml:1", "train: {epochs: 2}"),
        ("train:\n  seed: -1\n", "greater than or equal to 0", "tuneloop.yaml:2", "train: {seed: 0}"),
        ("train: {epochs: .inf}\n", "expected a finite number", "tuneloop.yaml:1", "train: {epochs: 2}"),
        ("evaluate: {subjects: []}\n", "at least 1 item", "tuneloop.yaml:1", "evaluate: {subjects: [tuned]}"),
        (
            "train:\n  epochs: 1\n  epochs: 2\n",
            "here twice (line 2 and line 3)",
            "tuneloop.yaml:3",
            "train: {epochs: 2}",
        ),
        ("train:\n  epochs: [1\n", "this is not YAML", "tuneloop.yaml:3:1", "train: {epochs: 1}"),
        ("train:\n\tepochs: 1\n", "this is not YAML", "tuneloop.yaml:2:1", "train: {epochs: 1}"),
        ("- train\n", "found a list where the sections", "tuneloop.yaml", "train: {}"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_mistake_in_the_configuration_is_named_with_its_line(
    tuneloop: Run, text: str, what: str, where: str, corrected: str
) -> None:
    Path("tuneloop.yaml").write_text(text)
    refused = refusal_of(tuneloop("train"))
    assert (refused.code, refused.where) == (2, where)
    assert what in refused.what
    assert not Path(".tuneloop").exists()
    Path("tuneloop.yaml").write_text(corrected + "\n")
    assert tuneloop("config", "show").code == 0


@pytest.mark.usefixtures("project")
def test_several_mistakes_are_all_named_at_once_in_three_lines(tuneloop: Run) -> None:
    Path("tuneloop.yaml").write_text("task: {kind: clasify}\ntrain:\n  epochs: many\n  lorra: {}\n")
    refused = refusal_of(tuneloop("train", "data.seed=x"))
    assert refused.code == 2
    assert refused.what.startswith("4 settings are wrong: (1) ")
    for expected in ("'classify'", "'many'", "'lora'", "[tuneloop.yaml:3]", "[tuneloop.yaml:4]", "data.seed=x"):
        assert expected in refused.what


@pytest.mark.usefixtures("project")
def test_without_a_configuration_the_advice_makes_one(tuneloop: Run) -> None:
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (2, "tuneloop.yaml")
    advised = re.findall(r"`tuneloop (.+)`", refused.do)[0].replace("FILE", "animals.csv", 1)
    assert tuneloop(*advised.split()).code == 0
    assert tuneloop(*PREPARE).code == 0


@pytest.mark.usefixtures("project")
def test_a_project_without_sources_says_how_to_name_one(tuneloop: Run) -> None:
    Path("tuneloop.yaml").write_text("train: {epochs: 1}\n")
    refused = refusal_of(tuneloop(*PREPARE))
    assert (refused.code, refused.where) == (2, "data.sources")
    assert "tuneloop init --data" in refused.do


@pytest.mark.parametrize(
    ("arguments", "what", "works"),
    [
        (["predct", "hi"], "No such command 'predct'. Did you mean 'predict'?", ["predict", "--help"]),
        (["data", "prepar"], "No such command 'prepar'. Did you mean 'prepare'?", ["data", "prepare", "--help"]),
        (["train", "--confg", "x"], "No such option: --confg", ["train", "--config", "tuneloop.yaml", "--dry-run"]),
        (["train", "learning_rate"], "not of the form section.key=value", ["train", "train.seed=1", "--dry-run"]),
        (["predict"], "no document is given", ["predict", "--help"]),
        (["predict", "hi", "--file", "a.csv"], "both documents and --file are given", ["predict", "--help"]),
        (["predict", "train.epochs=3"], "this reads like a setting", ["predict", "--help"]),
        (["predict", "hi", "--column", "x"], "no file that could have columns", ["predict", "--help"]),
        (["predict", "--file", "a.docx"], "the suffix '.docx' names no format", ["predict", "--help"]),
        (["predict", "hi", "--output", "a.csv"], "the suffix '.csv' is not .jsonl", ["predict", "--help"]),
        (["predict", "hi", "--output", "no/a.jsonl"], "there is no folder no", ["predict", "--help"]),
    ],
)
@pytest.mark.usefixtures("ready")
def test_wrong_usage_is_refused_before_anything_is_done(
    tuneloop: Run, arguments: list[str], what: str, works: list[str]
) -> None:
    refused = refusal_of(tuneloop(*arguments))
    assert refused.code == 2
    assert what in refused.what
    assert not Path(".tuneloop").exists()
    assert tuneloop(*works).code == 0


@pytest.mark.usefixtures("ready")
def test_a_stage_that_is_too_early_names_the_one_before_it(tuneloop: Run) -> None:
    advice = []
    for command in (["predict", "a cat"], ["evaluate"], ["train"]):
        refused = refusal_of(tuneloop(*command, *SETTINGS))
        assert (refused.code, "no dataset" in refused.what) == (1, True)
        advice.append(re.findall(r"`tuneloop (.+)`", refused.do)[0])
    assert advice == ["data prepare"] * 3
    assert artifacts() == []
    assert tuneloop(*PREPARE, *SETTINGS).code == 0
    for command in (["predict", "a cat"], ["evaluate"]):
        refused = refusal_of(tuneloop(*command, *SETTINGS))
        assert (refused.code, "no run" in refused.what) == (1, True)
        advice.append(re.findall(r"`tuneloop (.+)`", refused.do)[0])
    assert advice[3:] == ["train"] * 2
    assert artifacts() == ["dataset"]
    assert tuneloop("train", *SETTINGS).code == 0
    assert tuneloop("predict", "a cat", *SETTINGS).code == 0


@pytest.mark.usefixtures("ready")
def test_the_lineage_of_an_unknown_id_is_refused_and_the_list_is_offered(tuneloop: Run) -> None:
    refused = refusal_of(tuneloop("lineage", "feed"))
    assert refused.code == 1
    assert "'feed'" in refused.what
    advised = re.findall(r"`tuneloop (.+?)`", refused.do)[0]
    assert tuneloop(advised).code == 0


@pytest.fixture
def own_model(ready: Path, tiny_model: Path) -> Path:
    """A copy of the model that a test may break, in a project with a configuration."""
    return shutil.copytree(tiny_model, ready / "own", symlinks=True)


def break_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def break_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def break_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (break_tokenizer, "this model folder has no tokenizer"),
        (break_configuration, "not valid JSON"),
        (break_weights, "the model cannot be loaded"),
        (remove_weights, "this folder has no weights"),
    ],
)
def test_an_incomplete_model_folder_is_refused_and_a_complete_one_is_not(
    tuneloop: Run, own_model: Path, tiny_model: Path, damage: Callable[[Path], None], what: str
) -> None:
    assert tuneloop(*PREPARE).code == 0
    damage(own_model)
    command = ("train", *SETTINGS, "--set", "model.base_model=./own")
    refused = refusal_of(tuneloop(*command))
    assert refused.code == 1
    assert what in refused.what
    assert refused.where.startswith("own")
    assert artifacts() == ["dataset"]
    shutil.copytree(tiny_model, own_model, dirs_exist_ok=True)
    assert tuneloop(*command).code == 0


def test_pickled_weights_are_refused_unless_asked_for_by_name(
    tuneloop: Run, own_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    assert tuneloop(*PREPARE).code == 0
    weights = load_file(own_model / "model.safetensors")
    torch.save(weights, own_model / "pytorch_model.bin")
    (own_model / "model.safetensors").unlink()
    command = ("train", *SETTINGS, "--set", "model.base_model=./own")
    refused = refusal_of(tuneloop(*command))
    assert (refused.code, refused.where) == (2, "own")
    assert "pytorch_model.bin" in refused.what
    assert artifacts() == ["dataset"]
    setting = re.findall(r"set (model\.\w+): true", refused.do)[0]
    assert tuneloop(*command, "--set", f"{setting}=true").code == 0


def test_code_in_a_model_folder_is_refused_unless_asked_for_by_name(tuneloop: Run, own_model: Path) -> None:
    assert tuneloop(*PREPARE).code == 0
    config = json.loads((own_model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own_code.Model"}
    (own_model / "config.json").write_text(json.dumps(config))
    marker = own_model.parent / "it-ran"
    (own_model / "own_code.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    command = ("train", *SETTINGS, "--set", "model.base_model=./own")
    refused = refusal_of(tuneloop(*command))
    assert (refused.code, refused.where) == (2, "own/config.json")
    assert "model.trust_remote_code: true" in refused.do
    assert artifacts() == ["dataset"]
    assert not marker.exists()


@pytest.mark.usefixtures("ready")
def test_a_model_that_is_not_here_and_cannot_be_fetched_is_a_network_error(tuneloop: Run) -> None:
    assert tuneloop(*PREPARE).code == 0
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}  # huggingface_hub reads it once, when it is imported
    command = [sys.executable, "-m", "tuneloop", "train", "model.base_model=nobody/no-such-model"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 3)
    assert "cannot fetch 'nobody/no-such-model'" in lines[0]
    assert "model.base_model" in lines[1]
    assert artifacts() == ["dataset"]


@pytest.mark.usefixtures("ready")
def test_a_mistyped_model_folder_is_named_with_the_nearest_one(tuneloop: Run) -> None:
    assert tuneloop(*PREPARE).code == 0
    refused = refusal_of(tuneloop("train", *SETTINGS, "--set", "model.base_model=./modle"))
    assert (refused.code, refused.where) == (1, "model.base_model")
    nearest = re.findall(r"Did you mean '(.+)'\?", refused.what)[0]
    assert tuneloop("train", *SETTINGS, "--set", f"model.base_model={nearest}").code == 0


def full(*arguments: Any, **options: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "stopped_at",
    ["pyarrow.parquet.write_table", "tuneloop.artifacts.write_durably", "tuneloop.artifacts.os.fsync"],
)
@pytest.mark.usefixtures("ready")
def test_a_full_disk_leaves_no_half_dataset_and_with_space_it_goes_on(tuneloop: Run, stopped_at: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopped_at, full)
        refused = refusal_of(tuneloop(*PREPARE), after_progress=True)
    assert refused.code == 1
    assert refused.what == "cannot write: no space left on device"
    assert "Free some space" in refused.do
    assert artifacts() == []
    assert tuneloop(*PREPARE).code == 0


@pytest.mark.parametrize("stopped_at", ["tuneloop.train.run.save_adapter", "tuneloop.artifacts.write_durably"])
@pytest.mark.usefixtures("ready")
def test_a_full_disk_leaves_no_half_run_and_with_space_it_goes_on(tuneloop: Run, stopped_at: str) -> None:
    assert tuneloop(*PREPARE).code == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stopped_at, full)
        refused = refusal_of(tuneloop("train", *SETTINGS), after_progress=True)
    assert refused.code == 1
    assert refused.what == "cannot write: no space left on device"
    assert [artifact.kind for artifact in ArtifactStore(Path(".tuneloop/artifacts"))] == ["dataset"]
    assert tuneloop("train", *SETTINGS).code == 0
    assert artifacts() == ["dataset", "run"]


@pytest.mark.usefixtures("ready")
def test_a_store_below_a_file_is_refused(tuneloop: Run) -> None:
    for root in ("animals.csv", "animals.csv/store"):
        refused = refusal_of(tuneloop(*PREPARE, f"store.root={root}"))
        assert (refused.code, refused.where) == (2, f"store.root: {root}")
        assert refused.what == "animals.csv is a file, the store is a folder"
    setting = re.findall(r"store\.root=\S+", refused.do)[0]
    assert tuneloop(*PREPARE, setting).code == 0


@pytest.mark.usefixtures("ready")
def test_a_store_that_may_not_be_written_is_refused(tuneloop: Run) -> None:
    def forbidden(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))  # chmod does not stop root

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "mkdir", forbidden)
        refused = refusal_of(tuneloop(*PREPARE), after_progress=True)
    assert refused.code == 1
    assert refused.what.endswith("permission denied")
    assert refused.where.startswith(".tuneloop")
    assert "store.root" in refused.do
    assert tuneloop(*PREPARE, "--set", "store.root=elsewhere").code == 0


@pytest.mark.usefixtures("ready")
def test_ctrl_c_leaves_no_half_dataset_and_the_same_command_goes_on(tuneloop: Run) -> None:
    def interrupt(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneloop.data.prepare.split_examples", interrupt)
        refused = refusal_of(tuneloop(*PREPARE), after_progress=True)
    assert (refused.code, refused.what) == (130, "interrupted")
    assert "Run the same command again" in refused.do
    assert artifacts() == []
    assert tuneloop(*PREPARE).code == 0
    assert artifacts() == ["dataset"]
