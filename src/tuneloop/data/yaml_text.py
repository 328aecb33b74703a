"""A guessed configuration as YAML that explains itself. Knows nothing about how the guesses were made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tuneloop.data.validate import Columns
from tuneloop.records import TaskKind

FIRST_TOKENS = 25_000  # an epoch over them takes a few minutes on two CPU cores with the embedded model
CHARS_PER_TOKEN = 4
TOKENS_AROUND = 30  # of an example, beside its document: the chat format and the answer
FEWEST, MOST = 100, 800  # examples of a first try
FIRST_TEST, FIRST_FREE = 200, 50  # documents of a first evaluation, and how many of them are also answered freely
TRAIN_SHARE, VALIDATION_SHARE, TEST_SHARE = 0.7, 0.15, 0.15  # of all rows, with the defaults of `data`


@dataclass(frozen=True)
class Size:
    """How much data there is: rows, and the mean length of a text in characters."""

    rows: int
    mean_chars: float

    @property
    def first_examples(self) -> int:
        """How many examples are enough for a first result in minutes."""
        affordable = FIRST_TOKENS / (self.mean_chars / CHARS_PER_TOKEN + TOKENS_AROUND)
        return int(min(max(affordable // 50 * 50, FEWEST), MOST))


def config_text(
    path: str,
    columns: Columns,
    kind: TaskKind,
    instruction: str,
    on_invalid: str,
    size: Size,
    reasons: Mapping[str, str],
) -> str:
    """Return a whole tuneloop.yaml.

    Args: path: the source as it is to be written; reasons: why, by `text`, `label`, `entities`, `group`, `kind`,
        `on_invalid`; an empty one is left out.
    """
    blocks = [
        _block(
            "# What `tuneloop init` guessed from the data file: correct what is wrong.",
            "# Every other setting has a default; `tuneloop config show` prints them all.",
        ),
        _block("task:", *_why(reasons, "kind"), f"  kind: {kind}", f"  instruction: {_quoted(instruction)}"),
        _block("data:", "  sources:", f"    - path: {_quoted(path)}", "      columns:", *_columns(columns, reasons)),
        _block(
            *_why(reasons, "on_invalid"), f"  on_invalid: {on_invalid}  # error: stop at the first; drop: list them"
        ),
        _block(
            "model:",
            "  base_model: embedded  # SmolLM2-135M-Instruct, small enough for a CPU; or a Hub id, or a folder",
        ),
        _train(size),
        _evaluate(size),
        *_review(size),
    ]
    return "\n".join(blocks)


def _block(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def _why(reasons: Mapping[str, str], key: str, indent: int = 2) -> list[str]:
    reason = " ".join(reasons.get(key, "").split())
    return [f"{' ' * indent}# {reason}"] if reason else []


def _columns(columns: Columns, reasons: Mapping[str, str]) -> list[str]:
    lines = []
    for key, name in (("text", columns.text), ("label", columns.label), ("group", columns.group)):
        lines += _why(reasons, key, 8) + ([f"        {key}: {_quoted(name)}"] if name is not None else [])
    lines += _why(reasons, "entities", 8)
    if isinstance(columns.entities, str):
        lines.append(f"        entities: {_quoted(columns.entities)}")
    elif columns.entities:
        pairs = [f"          {_quoted(type_)}: {_quoted(name)}" for type_, name in columns.entities.items()]
        lines += ["        entities:", *pairs]
    return lines


def _train(size: Size) -> str:
    lines = [
        "# Sized for a first result in minutes on two CPU cores.",
        "train:",
        "  learning_rate: 0.001  # right for a small model and a short run; 0.0002 from 1B parameters on, or where",
        "                        # the loss jumps about (slower to learn, steadier)",
        "  epochs: 2  # how often each example is seen; 3 fit more, and overfit a few hundred examples sooner",
        "  batch_size: 8  # more steps, which a few hundred examples need; 32 computes faster, for some thousands",
        "  eval_steps: 25  # a look at the validation loss, and a checkpoint, every so many steps",
        "  max_validation_examples: 64  # for those looks: fewer are faster and noisier",
    ]
    all_examples = round(size.rows * TRAIN_SHARE)
    if size.first_examples < all_examples:
        lines.append(
            f"  max_examples: {size.first_examples}  # of about {all_examples:,}: all are better, and take "
            f"{all_examples / size.first_examples:.0f} times as long; remove it for the real run"
        )
    return _block(*lines)


def _evaluate(size: Size) -> str:
    documents = round(size.rows * TEST_SHARE)
    lines = ["evaluate:"]
    if documents > FIRST_TEST:
        lines.append(
            f"  max_examples: {FIRST_TEST}  # of about {documents:,} held-out documents: fewer are faster, and widen "
            "every interval"
        )
    lines.append(
        f"  free_generation_examples: {FIRST_FREE}  # answers written freely, to count invented labels: the slow part"
    )
    lines += [
        "  # regression: cases  # a folder of YAML files with cases that every model must pass, such as",
        "  #   - {name: …, why: …, text: a document, expect: {label: its label, min_probability: 0.8}}",
    ]
    return _block(*lines)


def _review(size: Size) -> list[str]:
    documents = round(size.rows * VALIDATION_SHARE)
    if documents <= FIRST_TEST:
        return []
    return [
        _block(
            "review:",
            f"  max_validation_examples: {FIRST_TEST}  # of about {documents:,}, to calibrate probabilities on: more "
            "promise more",
        )
    ]


def _quoted(text: str) -> str:
    """Return a double-quoted YAML scalar: JSON strings are that, with what YAML does not print escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
