"""What is wrong with a configuration, said in the words of the person who wrote it.

Turns pydantic's errors into one line each: key path, what was found, what was expected, the nearest valid key, and
the line of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tuneloop.errors import ConfigError, nearest

KeyPath = tuple[str | int, ...]
MAX_SHOWN_CHARS = 60

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "missing": "a value",
}

# What other tools call our settings.
OTHER_NAMES = {
    "rank": "r",
    "lora_r": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "lr_scheduler_type": "schedule",
    "max_length": "max_tokens",
    "max_seq_length": "max_tokens",
    "model_name_or_path": "base_model",
    "name": "base_model",
    "prompt": "instruction",
    "files": "sources",
    "val": "validation",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: at which key, what, and where that was written."""

    key: str
    complaint: str
    place: str


def dotted(path: KeyPath) -> str:
    """Return `data.sources[0].path` for `("data", "sources", 0, "path")`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def refusal(problems: Sequence[Problem], name: str) -> ConfigError:
    """Return one error that names every problem."""
    hint = "Correct it and run the command again; `tuneloop config show --defaults` prints every key."
    if len(problems) == 1:
        return ConfigError(f"{problems[0].key}: {problems[0].complaint}", where=problems[0].place, hint=hint)
    numbered = (
        f"({number}) {problem.key}: {problem.complaint} [{problem.place}]"
        for number, problem in enumerate(problems, start=1)
    )
    found = f"{len(problems)} settings are wrong: {'; '.join(numbered)}"
    return ConfigError(found, where=name, hint=hint.replace("it", "them", 1))


def explain(
    error: ValidationError, values: dict[str, Any], root: type[BaseModel], place_of: Callable[[KeyPath], str]
) -> list[Problem]:
    """Return one problem per wrong key; the branches of a union (`auto` or a list) become one."""
    by_path: dict[KeyPath, list[Any]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path_in(values, detail["loc"]), []).append(detail)
    problems = []
    for path, details in by_path.items():
        if any(other != path and other[: len(path)] == path for other in by_path):
            continue  # a deeper error tells the same story more exactly
        problems.append(Problem(dotted(path), _complaint(path, details, root), place_of(path)))
    return problems


def _path_in(values: Any, location: tuple[int | str, ...]) -> KeyPath:
    """Return pydantic's error location without the parts that name a branch of a union instead of a key."""
    path: list[str | int] = []
    here = values
    for index, part in enumerate(location):
        is_key = isinstance(here, dict) and part in here
        is_index = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_key or is_index:
            here = here[part]
        elif not (isinstance(here, dict) and index == len(location) - 1 and isinstance(part, str)):
            continue
        path.append(part)
    return tuple(path)


def _complaint(path: KeyPath, details: list[Any], root: type[BaseModel]) -> str:
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        return _unknown_key(path, root)
    expected = " or ".join(dict.fromkeys(_expectation(detail) for detail in details))
    if kinds == {"missing"}:
        return f"this key is missing, {expected} was expected"
    found = details[0]["input"]
    if isinstance(found, bool | int | float) and kinds <= {"string_type", "path_type"}:
        expected += " (YAML reads words like yes, no, on, off, and digits, as values: put the text in quotes)"
    close = ""
    if isinstance(found, str) and "literal_error" in kinds:
        close = nearest(found, [choice.strip("'") for detail in details for choice in _choices(detail)])
    return f"found {_shown(found)}, expected {expected}" + (f".{close}" if close else "")


def _expectation(detail: Any) -> str:
    if detail["type"] == "literal_error":
        return " or ".join(_choices(detail))
    message: str = detail["msg"]
    return EXPECTED.get(detail["type"], message.removeprefix("Input should be ").removeprefix("Value error, "))


def _choices(detail: Any) -> list[str]:
    expected: str = detail.get("ctx", {}).get("expected", "")
    return expected.replace(" or ", ", ").split(", ") if expected else []


def _unknown_key(path: KeyPath, root: type[BaseModel]) -> str:
    model = _model_at(path[:-1], root)
    valid = list(model.model_fields) if model else []
    name = str(path[-1])
    return f"unknown key {name!r}, expected one of {', '.join(valid)}.{_suggestion(name, valid, root)}"


def _suggestion(name: str, valid: list[str], root: type[BaseModel]) -> str:
    """Return what was probably meant: another tool's name for a key here, the same name elsewhere, or a typo."""
    usual = OTHER_NAMES.get(name, "")
    if usual in valid:
        return f" Did you mean {usual!r}?"
    elsewhere = [key for key in all_keys(root) if key.removesuffix("[]").rsplit(".", 1)[-1] in {name, usual}]
    if elsewhere:
        return f" Did you mean {' or '.join(repr(key) for key in elsewhere)}?"
    return nearest(name, valid)


def _model_at(path: KeyPath, root: type[BaseModel]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        model = next(_models_in(field.annotation), None) if field else None
    return model


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every key below `model`, sections (before their keys) and lists (with `[]`) included."""
    for name, field in model.model_fields.items():
        inner = next(_models_in(field.annotation), None)
        is_list = inner is not None and field.annotation is not inner
        yield (key := f"{prefix}{name}{'[]' if is_list else ''}")
        if inner is not None:
            yield from all_keys(inner, f"{key}.")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
