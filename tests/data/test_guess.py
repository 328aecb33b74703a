from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.data.texts import WORDS
from tuneloop.artifacts import ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.data.guess import Guess, guess_config
from tuneloop.data.prepare import prepare
from tuneloop.data.yaml_text import Size
from tuneloop.errors import DataError
from tuneloop.progress import SILENT


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def loaded(guess: Guess) -> Config:
    return Config.model_validate(yaml.safe_load(guess.config_text))


def message(n: int) -> str:
    return f"{WORDS[n % 390]} {WORDS[(n * 7) % 390]} asked {WORDS[(n * 3) % 390]} about number {n}"


def test_text_and_label_are_found_by_length_and_by_distinct_values(tmp_path: Path) -> None:
    rows = [{"n": n, "title": f"t{n}", "message": message(n), "intent_name": "abc"[n % 3]} for n in range(90)]
    guess = guess_config(write(tmp_path / "a.csv", rows), relative_to=tmp_path)
    config = loaded(guess)
    (source,) = config.data.sources
    assert (str(source.path), source.columns.text, source.columns.label) == ("a.csv", "message", "intent_name")
    assert config.task.kind == "classify" and config.task.instruction == "Decide the intent name of the text."
    assert config.data.on_invalid == "error"
    assert any("3 distinct values in 90 rows" in reason for reason in guess.reasons)
    assert all(reason in guess.config_text for reason in guess.reasons if "no " not in reason[:3])


def test_the_path_is_written_relative_to_the_folder_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(20)]
    path = write(tmp_path / 'quo\'te "d" #1.csv', rows)
    (source,) = loaded(guess_config(path, relative_to=tmp_path / "project")).data.sources
    assert (tmp_path / "project" / source.path).resolve() == path


def test_typed_entities_in_json_make_the_task_both(tmp_path: Path) -> None:
    rows = [
        {"body": message(n), "topic": "ab"[n % 2], "marks": [{"type": "word", "text": WORDS[n % 390]}]}
        for n in range(40)
    ]
    config = loaded(guess_config(write(tmp_path / "a.jsonl", rows)))
    assert config.task.kind == "classify+extract"
    assert config.data.sources[0].columns.entities == "marks"
    assert config.task.instruction == "Decide the topic of the text and extract the entities from it."


def test_list_columns_whose_values_occur_in_the_text_become_entity_types(tmp_path: Path) -> None:
    table = {
        "text": [message(n) for n in range(40)],
        "who": [[WORDS[n % 390]] for n in range(40)],
        "keywords": [["not in there"] for _ in range(40)],
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    config = loaded(guess_config(tmp_path / "a.parquet"))
    assert config.task.kind == "extract"
    assert config.data.sources[0].columns.entities == {"who": "who"}
    assert config.task.instruction == "Extract who from the text."


def test_an_identifier_that_repeats_becomes_the_group(tmp_path: Path) -> None:
    rows = [{"id": n, "customer_id": f"c{n // 3}", "text": message(n), "class": "ab"[n % 2]} for n in range(90)]
    columns = loaded(guess_config(write(tmp_path / "a.csv", rows))).data.sources[0].columns
    assert (columns.group, columns.label) == ("customer_id", "class")


def test_rows_that_cannot_be_used_make_it_drop_with_the_figures(tmp_path: Path) -> None:
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(40)]
    rows += [{"text": "", "label": "a"}, {"text": message(50), "label": "lonely"}]
    guess = guess_config(write(tmp_path / "a.csv", rows))
    assert loaded(guess).data.on_invalid == "drop"
    assert any("2 of 42 rows cannot be used (1 empty-text, 1 rare-label)" in reason for reason in guess.reasons)


def test_many_rows_are_tried_in_part_first_and_few_are_all_taken(tmp_path: Path) -> None:
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(2000)]
    many = loaded(guess_config(write(tmp_path / "many.csv", rows)))
    assert (many.train.max_examples, many.evaluate.max_examples) == (600, 200)
    few = loaded(guess_config(write(tmp_path / "few.csv", rows[:300])))
    assert (few.train.max_examples, few.evaluate.max_examples) == (None, None)
    assert few.train.learning_rate == many.train.learning_rate == 1e-3


def test_the_cases_that_every_model_must_pass_are_mentioned(tmp_path: Path) -> None:
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(20)]
    text = guess_config(write(tmp_path / "a.csv", rows)).config_text
    assert yaml.safe_load(text.replace("# regression: cases", "regression: cases"))["evaluate"]["regression"] == "cases"


def test_long_documents_make_the_first_try_smaller() -> None:
    sizes = [Size(10_000, chars).first_examples for chars in (20, 400, 2_000, 100_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (700, 100)


def test_the_path_is_absolute_where_the_way_would_lead_over_the_root(tmp_path: Path) -> None:
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(20)]
    path = write(tmp_path / "a.csv", rows)
    (source,) = loaded(guess_config(path, relative_to=Path("/elsewhere"))).data.sources
    assert source.path == path


def test_a_file_without_anything_to_learn_says_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"text": message(n), "number": n} for n in range(30)])
    with pytest.raises(DataError) as caught:
        guess_config(path)
    assert "'number' (30 distinct values)" in caught.value.message
    path.write_text("text,label\n")
    with pytest.raises(DataError, match="no rows"):
        guess_config(path)


def test_the_guessed_configuration_prepares_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": message(n), "label": "ab"[n % 2]} for n in range(60)]
    path = write(tmp_path / "a.csv", rows)
    monkeypatch.chdir(tmp_path)
    result = prepare(loaded(guess_config(path)), ArtifactStore(tmp_path / "store"), SILENT)
    assert result.artifact.summary["examples"] == 60
