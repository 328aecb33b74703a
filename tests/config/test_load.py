from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.config.load import load_config, schema, show
from tuneloop.config.problems import OTHER_NAMES, all_keys
from tuneloop.config.schema import Config
from tuneloop.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_yaml(text: str, name: str = "tuneloop.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_yaml


def refusal_of(path: Path | None, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value


def test_without_a_file_the_defaults_are_in_force() -> None:
    assert load_config(None) == Config()


@pytest.mark.parametrize("text", ["", "# only a comment\n", "train:\n", "train:\n  lora:\n", "data: {}\n"])
def test_an_empty_file_or_section_means_the_defaults(write: Any, text: str) -> None:
    loaded = load_config(write(text))
    assert loaded.model_copy(update={"store": Config().store}) == Config()


def test_every_mistake_is_named_at_once_with_key_line_found_and_expected(write: Any) -> None:
    path = write(
        "task:\n"
        "  kind: classfy\n"
        "train:\n"
        "  lora: {r: 2.5}\n"
        "  epochs: lots\n"
        "  batchsize: 8\n"
        "data:\n"
        "  sources:\n"
        "    - format: csv\n"
    )
    error = refusal_of(path)
    assert error.exit_code == 2
    assert "5 settings are wrong" in error.message
    assert "\n" not in error.message  # what the command line prints is three lines
    lines = re.split(r"; (?=\(\d\) )|: (?=\(1\) )", error.message)[1:]
    assert len(lines) == 5
    for key, found, expected, line in [
        ("task.kind", "'classfy'", "'classify'", 2),
        ("train.lora.r", "2.5", "a whole number", 4),
        ("train.epochs", "'lots'", "a number", 5),
        ("train.batchsize", "unknown key", "Did you mean 'batch_size'?", 6),
        ("data.sources[0].path", "missing", "a value", 9),
    ]:
        (about,) = (text for text in lines if f" {key}: " in text)
        assert found in about
        assert expected in about
        assert f"[{path}:{line}]" in about


def test_a_single_mistake_is_located_by_file_and_line(write: Any) -> None:
    path = write("train:\n  seed: 1\n  lr: 3\n")
    error = refusal_of(path)
    assert error.where == f"{path}:3"
    assert error.message.startswith("train.lr: unknown key 'lr', expected one of lora, learning_rate")
    assert error.message.endswith("Did you mean 'learning_rate'?")


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("lora: {r: 8}", "'train.lora'"),
        ("epochs: 3", "'train.epochs'"),
        ("modle: {}", "'model'"),
        ("model: {name: x}", "'base_model'"),
        ("train: {lora: {rank: 8}}", "'r'"),
        ("sources: []", "'data.sources[]'"),
        ("task: {kind: Extract}", "'extract'"),
        ("data: {near_duplicates: {treshold: 0.5}}", "'threshold'"),
        ("data: {sources: [{path: x, colums: {}}]}", "'columns'"),
        ("data: {sources: [{path: x, columns: {lable: y}}]}", "'label'"),
    ],
)
def test_the_nearest_valid_key_or_value_is_named(write: Any, text: str, suggestion: str) -> None:
    assert f"Did you mean {suggestion}?" in refusal_of(write(text)).message


def test_every_name_of_another_tool_leads_to_a_key_that_exists() -> None:
    names = {key.rsplit(".", 1)[-1].removesuffix("[]") for key in all_keys(Config)}
    assert set(OTHER_NAMES.values()) <= names
    assert set(OTHER_NAMES) & names == {"name"}  # of served models; elsewhere the word of others for the base model


def test_what_is_wrong_in_a_list_that_may_also_be_a_word_is_said_once(write: Any) -> None:
    error = refusal_of(write("task:\n  labels: [a, yes]\n"))
    assert error.message.startswith("task.labels[1]: found true, expected text")
    assert "quotes" in error.message


def test_a_value_that_fits_no_branch_names_both(write: Any) -> None:
    message = refusal_of(write("task: {labels: 3}")).message
    assert message == "task.labels: found 3, expected 'auto' or a list"


@pytest.mark.parametrize(
    ("text", "line"),
    [("train:\n  seed: 1\n  seed: 2\n", 3), ("train: {}\ndata: {}\ntrain: {seed: 1}\n", 3)],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(write: Any, text: str, line: int) -> None:
    path = write(text)
    error = refusal_of(path)
    assert f"line {line}" in error.message
    assert "twice" in error.message
    assert error.where == f"{path}:{line}"


def test_anchors_and_merge_keys_are_plain_yaml(write: Any) -> None:
    path = write("train: &seeded\n  seed: 5\nevaluate:\n  <<: *seeded\n  shots: 2\n")
    loaded = load_config(path)
    assert (loaded.train.seed, loaded.evaluate.seed, loaded.evaluate.shots) == (5, 5, 2)


def test_a_missing_file_points_to_init(tmp_path: Path) -> None:
    error = refusal_of(tmp_path / "tuneloop.yaml")
    assert "tuneloop init --data" in error.hint
    assert error.where == str(tmp_path / "tuneloop.yaml")


@pytest.mark.parametrize(
    ("content", "message", "place"),
    [
        (b"train: {seed: 1\n", "not YAML", ":2:1"),
        (b"train:\n\tseed: 1\n", "not YAML", ":2:1"),
        (b"task:\n  instruction: Sort: it\n", "not YAML", ":2:20"),
        (b"- a\n- b\n", "found a list where the sections", ""),
        (b"hello\n", "found text where the sections", ""),
        (b"task: {instruction: \xff}\n", "byte 20 (0xff) is not UTF-8", ""),
        (b"a: !!python/object/apply:os.system [ls]\n", "not YAML", ":1:4"),
    ],
)
def test_what_is_no_configuration_at_all_is_refused_with_its_place(
    tmp_path: Path, content: bytes, message: str, place: str
) -> None:
    path = tmp_path / "tuneloop.yaml"
    path.write_bytes(content)
    error = refusal_of(path)
    assert message in error.message
    assert error.where == f"{path}{place}"


def test_a_tab_is_called_a_tab(write: Any) -> None:
    assert "spaces, not tabs" in refusal_of(write("train:\n\tseed: 1\n")).hint


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal_of(tmp_path).message


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbftrain: {seed: 7}\n")
    assert load_config(tmp_path / "c.yaml").train.seed == 7


def test_relative_paths_in_the_file_start_from_its_folder(write: Any, tmp_path: Path) -> None:
    path = write("data: {sources: [{path: a.csv}, {path: /abs/b.csv}]}\nmodel: {base_model: ./tuned}\n", "deep/t.yaml")
    loaded = load_config(path)
    assert [source.path for source in loaded.data.sources] == [tmp_path / "deep" / "a.csv", Path("/abs/b.csv")]
    assert loaded.store.root == tmp_path / "deep" / ".tuneloop"
    assert Path(loaded.model.base_model) == tmp_path / "deep" / "tuned"


def test_a_hub_id_is_not_taken_for_a_path(write: Any) -> None:
    assert load_config(write("model: {base_model: org/name}")).model.base_model == "org/name"


def test_relative_paths_in_overrides_start_from_the_current_folder(write: Any) -> None:
    path = write("data: {sources: [{path: a.csv}]}\nstore: {root: there}\n", "deep/t.yaml")
    loaded = load_config(path, ["data.sources.0.path=b.csv", "store.root=here"])
    assert (loaded.data.sources[0].path, loaded.store.root) == (Path("b.csv"), Path("here"))


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(write: Any) -> None:
    path = write("train: {epochs: 1, lora: {r: 4, alpha: 8}}\n")
    loaded = load_config(path, ["train.lora.r=32", "train.epochs=2", "train.epochs=5"])
    assert (loaded.train.lora.r, loaded.train.lora.alpha, loaded.train.epochs) == (32, 8, 5)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("task.labels=[a, b c]", ["a", "b c"]),
        ("task.labels=auto", "auto"),
        ("task.instruction=a=b", "a=b"),
        ("task.instruction='yes'", "yes"),
        ("train.learning_rate=1e-3", 0.001),
        ("train.max_examples=", None),
        ("train.gradient_checkpointing=true", True),
    ],
)
def test_an_override_is_yaml(override: str, value: object) -> None:
    section, key = override.split("=")[0].split(".")
    assert getattr(getattr(load_config(None, [override]), section), key) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train", "not of the form section.key=value"),
        ("=3", "not of the form section.key=value"),
        ("train..r=3", "not of the form section.key=value"),
        ("train.lora.rank=3", "Did you mean 'r'?"),
        ("train.lora.r=[3", "is not YAML"),
        ("train.lora.r=0", "greater than or equal to 1"),
        ("train.epochs.x=1", "found"),
        ("data.sources.3.path=x", "expected a list"),
    ],
)
def test_a_wrong_override_is_refused_and_named(override: str, message: str) -> None:
    error = refusal_of(None, override)
    assert message in error.message
    assert "command line" in error.where


def test_an_override_into_a_missing_list_item_says_how_many_there_are(write: Any) -> None:
    message = refusal_of(write("data: {sources: [{path: a}]}"), "data.sources.1.path=b").message
    assert "data.sources has 1 items, counted from 0" in message


def test_mistakes_of_the_file_and_of_overrides_come_together(write: Any) -> None:
    path = write("train: {epochs: lots}\n")
    error = refusal_of(path, "train.lora.r=x", "nonsense")
    assert "3 settings are wrong" in error.message
    assert f"[{path}:1]" in error.message
    assert "[train.lora.r=x (command line)]" in error.message


def test_splits_that_leave_nothing_to_train_on_are_refused(write: Any) -> None:
    path = write("data:\n  validation: 0.5\n  test: 0.5\n")
    error = refusal_of(path)
    assert "leaves nothing to train on" in error.message
    assert error.where == f"{path}:3"


@pytest.mark.parametrize("key", ["labels", "entities"])
def test_a_name_that_stands_twice_in_a_closed_set_is_refused(write: Any, key: str) -> None:
    assert "'a' stands twice" in refusal_of(write(f"task: {{{key}: [a, b, a]}}")).message


def test_a_configuration_cannot_change_after_loading() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config(None).train.seed = 3  # type: ignore[misc]


def test_show_prints_every_key_and_is_read_back_to_the_same(tmp_path: Path) -> None:
    chosen = load_config(None, ["data.sources=[{path: /x/é.csv}]", "task.labels=[on, 'no']", "store.root=/s"][:1])
    path = tmp_path / "shown.yaml"
    path.write_text(show(chosen), encoding="utf-8")
    again = load_config(path, ["store.root=.tuneloop"])
    assert again == chosen
    assert yaml.safe_load(show(chosen)).keys() == Config.model_fields.keys()


numbers = st.floats(min_value=1e-6, max_value=1, allow_nan=False)
names = st.text(min_size=1, max_size=20)


@given(
    rate=numbers,
    labels=st.lists(names, min_size=1, unique=True),
    instruction=st.text(),
    columns=st.dictionaries(names, names),
)
def test_whatever_a_configuration_holds_show_and_load_are_inverse(
    tmp_path_factory: pytest.TempPathFactory, rate: float, labels: list[str], instruction: str, columns: dict[str, str]
) -> None:
    chosen = Config.model_validate(
        {
            "task": {"labels": labels, "instruction": instruction},
            "train": {"learning_rate": rate},
            "data": {"sources": [{"path": "/data/x", "columns": {"entities": columns}}]},
            "store": {"root": "/store"},
        }
    )
    path = tmp_path_factory.mktemp("shown") / "tuneloop.yaml"
    path.write_text(show(chosen), encoding="utf-8")
    assert load_config(path) == chosen


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_file_content_gets_past_loading_without_a_config_or_an_explanation(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "tuneloop.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        assert error.hint
        assert str(path) in error.where


@given(st.lists(st.text(max_size=40) | st.from_regex(r"(train|data|task)\.[a-z_.0-9]{1,12}=.{0,8}"), max_size=3))
def test_no_override_gets_past_loading_without_a_config_or_an_explanation(overrides: list[str]) -> None:
    try:
        assert isinstance(load_config(None, overrides), Config)
    except ConfigError as error:
        assert error.hint


def test_the_schema_describes_every_section_and_accepts_only_known_keys() -> None:
    described = schema()
    assert json.loads(json.dumps(described)) == described
    assert described["additionalProperties"] is False
    for name, section in described["$defs"].items():
        assert section["description"], name
        assert section["additionalProperties"] is False, name
