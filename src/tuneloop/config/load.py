"""`tuneloop.yaml` plus `section.key=value` overrides, checked, as one frozen `Config`.

Every mistake is reported in one go: a person fixes a file once. Paths in the file are relative to the file's folder,
paths in overrides to the current one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tuneloop.config.document import Document, apply_overrides, read_document
from tuneloop.config.environments import EnvironmentsConfig
from tuneloop.config.problems import KeyPath, Problem, explain, refusal
from tuneloop.config.schema import Config, StoreConfig

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration in the YAML file at `path` (None: the defaults) with `overrides` on top.

    Args: overrides `section.key=value`, the value in YAML (`train.lora.r=32`, `task.labels=[a, b]`).
    Raises: ConfigError: naming every wrong key at once; the file is missing or is not YAML.
    """
    document = read_document(path) if path is not None else Document("the command line")
    if path is not None:
        _anchor_paths(document.values, path.parent)
    _drop_empty_sections(document.values, Config)
    problems = apply_overrides(document, overrides)
    try:
        config = Config.model_validate(document.values)
    except ValidationError as error:
        problems += explain(error, document.values, Config, document.place_of)
    else:
        problems += _contradictions(config, document)
        if not problems:
            return config
    raise refusal(problems, document.name)


def show(config: Config) -> str:
    """Return the whole configuration, defaults included, as YAML that `load_config` reads back to the same."""
    values = config.model_dump(mode="json")
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Escapes the rare line separators, which PyYAML 6.0 writes as they are and reads back as spaces."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if any(character in text for character in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `tuneloop.yaml`, for editors that complete and check while typing."""
    return {"$schema": SCHEMA_DIALECT, **Config.model_json_schema()} | {"title": "tuneloop.yaml"}


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make relative paths in the file's values start from the file's own folder, in place."""
    data, store, model, review, evaluate = (
        values.get(section) for section in ("data", "store", "model", "review", "evaluate")
    )
    sources = data.get("sources") if isinstance(data, dict) else None
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict):
            _anchor(source, "path", folder)
    if store is None:
        store = values["store"] = {}
    if isinstance(store, dict):
        store.setdefault("root", str(StoreConfig().root))
        _anchor(store, "root", folder)
    if isinstance(evaluate, dict):
        _anchor(evaluate, "regression", folder)
    base_model = model.get("base_model") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(base_model, str) and base_model.startswith(("./", "../", "~/")):
        _anchor(model, "base_model", folder)
    if isinstance(review, dict):
        _anchor(review, "foreign_texts", folder)
    if isinstance(environments := values.get("environments"), dict):
        for name in EnvironmentsConfig.model_fields:
            _anchor(environments, name, folder)


def _anchor(values: dict[str, Any], key: str, folder: Path) -> None:
    if isinstance(values.get(key), str):
        values[key] = str(folder / Path(values[key]).expanduser())


def _drop_empty_sections(values: dict[str, Any], model: type[BaseModel]) -> None:
    """Remove `section:` lines with nothing below them, in place: they mean the defaults."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            inner = next((a for a in get_args(inner) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if inner is None or name not in values:
            continue
        below = values[name]
        if below is None:
            del values[name]
        for item in below if isinstance(below, list) else [below]:
            if isinstance(item, dict):
                _drop_empty_sections(item, inner)


def _contradictions(config: Config, document: Document) -> list[Problem]:
    """Return what no single key shows: settings that are each fine and together are not."""
    problems = []
    kept_out = config.data.validation + config.data.test
    if kept_out >= 1:
        path: KeyPath = ("data", "test" if ("data", "test") in document.places else "validation")
        complaint = f"data.validation + data.test is {kept_out:g}, which leaves nothing to train on; expected below 1"
        problems.append(Problem(".".join(map(str, path)), complaint, document.place_of(path)))
    shortest, longest = config.data.min_chars, config.data.max_chars
    if longest is not None and shortest > longest:
        complaint = f"{longest} is below data.min_chars ({shortest}), which leaves no document; raise it"
        problems.append(Problem("data.max_chars", complaint, document.place_of(("data", "max_chars"))))
    threshold, target = config.review.threshold, config.review.target_error
    if (threshold is None) == (target is None):
        both = f"it is {threshold}, and review.target_error {target}: only one can decide; remove one of them"
        complaint = both if target else "neither threshold nor target_error says which answers are accepted; give one"
        key = ("review", "threshold")
        problems.append(Problem("review.threshold", complaint, document.place_of(key)))
    for path in (("task", "labels"), ("task", "entities"), ("evaluate", "subjects")):
        chosen = getattr(getattr(config, path[0]), path[1])
        twice = sorted({each for each in chosen if chosen.count(each) > 1}) if isinstance(chosen, list) else []
        if twice:
            complaint = f"{', '.join(map(repr, twice))} stands twice in the list; keep one"
            problems.append(Problem(".".join(path), complaint, document.place_of(path)))
    return problems
