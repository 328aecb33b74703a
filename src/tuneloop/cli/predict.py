"""`tuneloop predict`: the tuned model's answers to new documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.documents import Document
    from tuneloop.cli.session import Session
    from tuneloop.config.schema import ReviewConfig
    from tuneloop.records import Prediction

EPILOG = options.example(
    'tuneloop predict "My card has not arrived yet."',
    "cat notice.txt | tuneloop predict -",
    "tuneloop predict --file inbox.csv --column message --output answers.jsonl",
    "tuneloop predict big.parquet   # writes big.answers.parquet; run it again if it was interrupted",
)
SHOWN = 20  # answers, of many
SHOWN_CHARS = 60
CHUNK = 128

Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT",
        help="Documents, each in quotes; - is standard input, as one document. Or a data file: its answers go to "
        "NAME.answers.parquet (or .jsonl) beside it.",
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="Documents in .jsonl, .csv or .parquet, or .txt with one a line."
    ),
]
Column = Annotated[
    str | None,
    typer.Option("--column", metavar="NAME", help="The column with the text (default: as in the configuration)."),
]
SkipInvalid = Annotated[bool, typer.Option("--skip-invalid", help="Leave out rows of FILE without a usable text.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT.jsonl",
        help="Write one row a document here, as .jsonl or .parquet. Answers to a FILE are kept in OUT.jsonl.partial as "
        "they come: after an interruption the same command goes on from there.",
    ),
]
Restart = Annotated[bool, typer.Option("--restart", help="Forget the unfinished answers of an interrupted command.")]
Chunk = Annotated[
    int,
    typer.Option(
        "--chunk",
        metavar="N",
        min=1,
        help="Documents of FILE that are answered and kept together: more are faster, and more is lost when killed.",
    ),
]
Free = Annotated[bool, typer.Option("--free", help="Let the model write anything, instead of choosing a known label.")]
Run = Annotated[str | None, typer.Option("--run", metavar="ID", help="Use this run (default: the configuration's).")]


def predict(
    texts: Texts = None,
    file: File = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    output: Output = None,
    free: Free = False,
    run: Run = None,
    restart: Restart = False,
    chunk: Chunk = CHUNK,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Answer new documents with the tuned model: label, probability, entities, and whether a person should look.

    Settings are given with --set only: a bare KEY=VALUE would be a document here.
    """
    from tuneloop.cli.documents import read_documents
    from tuneloop.cli.session import chosen_run, open_session
    from tuneloop.loop import stages

    session = open_session(config, None, sets, as_json=as_json)
    texts, file, output = _with_positional_file(texts or [], file, output)
    if file is not None and output is not None and not texts:
        from tuneloop.cli.predict_file import Batch, predict_file

        batch = Batch(file, column, output, run, is_free=free, skip_invalid=skip_invalid, restart=restart, chunk=chunk)
        predict_file(session, batch, dry_run=dry_run)
        return
    sources = session.config.data.sources
    documents = read_documents(
        texts,
        file,
        column,
        default_column=sources[0].columns.text if sources else "text",
        skip_invalid=skip_invalid,
        progress=session.progress,
    )
    require_writable(output)
    chosen = chosen_run(session, run)
    if dry_run:
        facts = {"documents": len(documents), "run": chosen.id, "output": str(output) if output else None}
        session.finish({"dry_run": True, **facts}, f"{len(documents)} documents would be answered by run {chosen.id}.")
        return
    policy = None if free else stages.find_policy(session.config, chosen, session.store)
    predictor = stages.open_predictor(session.config, session.store, session.progress, chosen)
    with session.progress.task("Answering", len(documents)) as advance:
        answers = predictor.predict([document.text for document in documents], "free" if free else "closed", advance)
    if policy is not None:
        answers = policy.apply(answers)
    rows = [answer_row(document, answer) for document, answer in zip(documents, answers, strict=True)]
    if output is not None:
        from tuneloop.infer.batch.output import write_rows

        write_rows(output, rows)
    _finish(session, rows, chosen, output, is_calibrated=policy is not None)


def _with_positional_file(
    words: list[str], file: Path | None, output: Path | None
) -> tuple[list[str], Path | None, Path | None]:
    """Return (documents, file, output), where a single word that names a data file is that file."""
    from tuneloop.cli.documents import names_a_file
    from tuneloop.sources import is_parquet

    if file is not None or len(words) != 1 or not names_a_file(words[0]):
        return words, file, output
    path = Path(words[0])
    suffix = ".parquet" if is_parquet(path) else ".jsonl"
    return [], path, output or path.with_name(f"{path.stem}.answers{suffix}")


def require_writable(output: Path | None) -> None:
    """Refuse before the model has worked for nothing."""
    from tuneloop.cli.session import require_place
    from tuneloop.errors import UsageError
    from tuneloop.sources import WRITTEN_SUFFIXES

    if output is None:
        return
    if output.suffix.lower() not in WRITTEN_SUFFIXES:
        hint = f"Answers are written as JSON Lines or Parquet: --output {output.with_suffix('.jsonl')}"
        raise UsageError(
            f"the suffix {output.suffix!r} is not .jsonl or .parquet", where=f"--output {output}", hint=hint
        )
    require_place(output, f"--output {output}")


def answer_row(document: Document, answer: Prediction) -> dict[str, Any]:
    """Return one answer as it is written: the document's place and text first."""
    place = {"source": document.source, "row": document.row} if document.row else {}
    return {**place, "text": document.text, **asdict(answer)}


def _finish(
    session: Session, rows: Sequence[dict[str, Any]], run: Artifact, output: Path | None, *, is_calibrated: bool
) -> None:
    data = {"predictions": rows, "run": run.id, "calibrated": is_calibrated}
    data |= {"output": str(output)} if output else {}
    review = session.config.review
    if len(rows) == 1 and output is None:
        session.finish(data, _one(rows[0], review, is_calibrated=is_calibrated))
        return
    routes = Counter(row["route"] for row in rows)
    lines: list[RenderableType] = [summary_line(routes, review, run, is_calibrated=is_calibrated)]
    if output is not None:
        lines.append(f"  {output}")
    else:
        lines = [_many(rows[:SHOWN]), "", *lines]
        if len(rows) > SHOWN:
            lines.append(f"The first {SHOWN} are shown; --output FILE.jsonl writes all.")
    session.finish(data, *lines)


def summary_line(routes: Mapping[str, int], review: ReviewConfig, run: Artifact, *, is_calibrated: bool) -> str:
    """Return how many documents have which route, by which rule, and who answered them."""
    auto, to_people = routes.get("auto", 0), routes.get("review", 0)
    rule = f"threshold {review.threshold:g}" if review.threshold is not None else _promised(review)
    rule += "; probabilities calibrated" if is_calibrated else ""
    return f"{auto + to_people:,} documents: {auto:,} auto, {to_people:,} review ({rule}), answered by run {run.id}"


def _one(row: dict[str, Any], review: ReviewConfig, *, is_calibrated: bool) -> RenderableType:
    from tuneloop.cli.render import table

    why = _why(row, review)
    calibrated = " (calibrated)" if is_calibrated else ""
    lines = [["probability", _probability(row) + calibrated], ["route", row["route"] + (f"; {why}" if why else "")]]
    if row["label"] is not None:
        lines.insert(0, ["label", _label(row)])
    if row["entities"] is not None:
        lines += [[entity["type"], _visible(entity["text"])] for entity in row["entities"]] or [["entities", "none"]]
        rejected = row["rejected_entities"]
        lines += [[f"{entity['type']}, not in the text", _visible(entity["text"])] for entity in rejected]
    return table(None, lines)


def _why(row: dict[str, Any], review: ReviewConfig) -> str:
    """Return why a person should look at the answer; empty where none should, or the label says it itself."""
    if not row["well_formed"]:
        return "the answer is malformed"
    if row["reason"] == "out-of-scope":
        return "the document is unlike those that the model was tuned for"
    if row["route"] == "auto" or row["invented"]:
        return ""
    if review.threshold is None:
        return f"not sure enough for {_promised(review)}"
    return f"under the threshold of {review.threshold:g}"


def _promised(review: ReviewConfig) -> str:
    """Return the target of the accepted answers in words."""
    return f"at most {100 * (review.target_error or 0):.3g} % wrong"


def _many(rows: Sequence[dict[str, Any]]) -> RenderableType:
    from tuneloop.cli.render import table

    has_label = any(row["label"] is not None for row in rows)
    has_entities = any(row["entities"] is not None for row in rows)
    headings = ["", *(["label"] if has_label else []), "probability", "route", *(["entities"] if has_entities else [])]
    cells = []
    for number, row in enumerate(rows, start=1):
        label = [_label(row)] if has_label else []
        entities = [_entities(row["entities"] or ())] if has_entities else []
        shown = [str(row.get("row") or number), *label, _probability(row), row["route"], *entities]
        cells.append([*shown, _shortened(_visible(row["text"]))])
    return table([*headings, "document"], cells)


def _label(row: dict[str, Any]) -> str:
    label = _shortened(_visible(row["label"] or "none"))
    return f"{label} (not in the label set)" if row["invented"] else label


def _probability(row: dict[str, Any]) -> str:
    return f"{row['probability']:.3f}"


def _entities(entities: Sequence[dict[str, Any]]) -> str:
    return "; ".join(f"{entity['type']}: {_visible(entity['text'])}" for entity in entities) or "none"


def _visible(text: str) -> str:
    """Return the text in one line, without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
