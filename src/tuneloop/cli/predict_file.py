"""`tuneloop predict FILE`: a file of any length, answered chunk by chunk into another file, and resumed when killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneloop.cli.predict import answer_row, require_writable, summary_line
from tuneloop.cli.session import chosen_run

if TYPE_CHECKING:
    from pathlib import Path

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.documents import Document, DocumentFile
    from tuneloop.cli.session import Session
    from tuneloop.infer.batch.run import BatchResult
    from tuneloop.infer.policy import ReviewPolicy
    from tuneloop.infer.predict import Mode
    from tuneloop.progress import Advance


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked for on the command line. `chunk` is how many documents are answered and kept together."""

    file: Path
    column: str | None
    output: Path
    run: str | None
    is_free: bool
    skip_invalid: bool
    restart: bool
    chunk: int


def predict_file(session: Session, batch: Batch, *, dry_run: bool) -> None:
    """Answer the documents of a file into another one, in order.

    Raises: UsageError, DataError: the file, its column or the output cannot be used, or unfinished answers there are
        of something else.
    """
    from tuneloop.cli.documents import DocumentFile
    from tuneloop.loop import stages

    sources = session.config.data.sources
    documents = DocumentFile(batch.file, batch.column or (sources[0].columns.text if sources else "text"))
    total = documents.count(skip_invalid=batch.skip_invalid, progress=session.progress)
    require_writable(batch.output)
    _require_another_file(batch.file, batch.output)
    run = chosen_run(session, batch.run)
    if dry_run:
        facts = {"documents": total, "run": run.id, "output": str(batch.output)}
        session.finish({"dry_run": True, **facts}, f"{total} documents would be answered by run {run.id}.")
        return
    policy = None if batch.is_free else stages.find_policy(session.config, run, session.store)
    result = _answer(session, batch, documents, total, run, policy)
    _finish(session, result, run, batch.output, is_calibrated=policy is not None)


def _answer(
    session: Session, batch: Batch, documents: DocumentFile, total: int, run: Artifact, policy: ReviewPolicy | None
) -> BatchResult:
    from tuneloop.infer.batch.run import run_batch
    from tuneloop.loop import stages

    mode: Mode = "free" if batch.is_free else "closed"
    about = _about(session, documents, run, policy, mode)
    predictor = stages.open_predictor(session.config, session.store, session.progress, run)

    def answer(asked: Sequence[Document], advance: Advance) -> list[dict[str, Any]]:
        answers = predictor.predict([document.text for document in asked], mode, advance)
        routed = answers if policy is None else policy.apply(answers)
        return [answer_row(document, one) for document, one in zip(asked, routed, strict=True)]

    return run_batch(
        documents,
        total,
        answer,
        batch.output,
        about,
        chunk_size=batch.chunk,
        progress=session.progress,
        restart=batch.restart,
    )


def _about(
    session: Session, documents: DocumentFile, run: Artifact, policy: ReviewPolicy | None, mode: Mode
) -> dict[str, Any]:
    """Return everything that determines the answers, under names that a message can use."""
    from tuneloop import __version__
    from tuneloop.artifacts import content_id, sha256_of

    config = session.config
    threshold = config.review.threshold
    return {
        "file": documents.path.name,
        "sha256 of the file": sha256_of(documents.path),
        "column": documents.column,
        "run": run.id,
        "calibration": None if policy is None else content_id("policy", policy.to_dict()),
        "review.threshold": threshold if policy is None else None,
        "mode": mode,
        "model.dtype": config.model.dtype,
        "model.max_tokens": config.model.max_tokens,
        "model.label_scoring": config.model.scoring(is_tuned=True),
        "evaluate.max_new_tokens": config.evaluate.max_new_tokens,
        "evaluate.tokens_per_row": config.evaluate.tokens_per_row,
        "tuneloop": __version__,
    }


def _require_another_file(file: Path, output: Path) -> None:
    from tuneloop.errors import UsageError

    if output.exists() and output.samefile(file):
        hint = "Name another file; the documents would be lost."
        raise UsageError("the output is the file with the documents", where=f"--output {output}", hint=hint)


def _finish(session: Session, result: BatchResult, run: Artifact, output: Path, *, is_calibrated: bool) -> None:
    facts = {
        "documents": result.documents,
        "resumed": result.resumed,
        "routes": dict(result.routes),
        "docs_per_s": round(result.docs_per_s, 3),
        "run": run.id,
        "calibrated": is_calibrated,
        "output": str(output),
    }
    line = summary_line(result.routes, session.config.review, run, is_calibrated=is_calibrated)
    session.finish(facts, line, f"  {output}  ({result.docs_per_s:.3g} documents a second)")
