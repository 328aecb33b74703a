"""How exports are shown: what became of each form, and how like the original it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from tuneloop.artifacts import Artifact
    from tuneloop.cli.session import Session
    from tuneloop.export.run import Exported

NONE = "–"
HEADINGS = ["form", "MiB", "prompts equal", "labels agree (%)", "median Δ probability", "accuracy (%)", "verdict"]


def print_exports(session: Session, done: Sequence[Exported], run: Artifact, bundles: Sequence[Path]) -> None:
    """Print what became of the forms: the parity table, where they are, and what was bundled."""
    from tuneloop.cli.render import table
    from tuneloop.cli.stages import command_line

    lines: list[RenderableType] = [table(HEADINGS, [_row(one) for one in done]), ""]
    lines += [_place(one) for one in done]
    lines += ["", "Bundled:", *(f"  {path}" for path in bundles)] if bundles else []
    data = {
        "run": run.id,
        "exports": [_described(one) for one in done],
        "bundles": [str(path) for path in bundles],
    }
    is_refused = any(one.refusal is not None for one in done)
    next_step = command_line(session, "export --list" if is_refused else "serve")
    session.finish(data, *lines, "", f"Next: {next_step}")


def list_all(session: Session) -> None:
    """Print every export in the store, newest last, and the forms that were made and not exported."""
    from tuneloop.cli.render import table
    from tuneloop.forms import KIND, read_form

    forms = [(artifact, read_form(artifact)) for artifact in session.store if artifact.kind == KIND]
    rows = [
        [artifact.id, form.name, form.run_id, f"{artifact.summary['size_mib']:,.1f}", _verdict(form.parity, None)]
        for artifact, form in forms
    ]
    data = {
        "exports": [
            {"id": artifact.id, "form": form.name, "run": form.run_id, "path": str(artifact.path)}
            | {key: artifact.summary[key] for key in ("size_mib", "parity", "allowed_beyond_tolerance")}
            for artifact, form in forms
        ]
    }
    nothing = "Nothing was exported yet. `tuneloop export` does it."
    session.finish(data, table(["id", "form", "run", "MiB", "parity"], rows) if rows else nothing)


def _row(one: Exported) -> list[str]:
    parity = one.parity
    size = NONE if one.artifact is None else f"{one.artifact.summary['size_mib']:,.1f}"
    if parity is None:
        return [one.form, size, NONE, NONE, NONE, NONE, "REFUSED"]
    prompts, labels, accuracy = parity["prompts"], parity["labels"], parity["accuracy"]
    probability = parity["probability_difference"]
    return [
        one.form,
        size,
        "not told" if prompts["same_tokens"] is None else f"{prompts['same_tokens']:,} of {prompts['n']:,}",
        NONE if labels is None else _percent(labels["agreement"]),
        NONE if probability is None or probability["median"] is None else f"{probability['median']:.4f}",
        NONE if accuracy is None else _percent(accuracy["other"]),
        _verdict(parity, one),
    ]


def _verdict(parity: Mapping[str, Any], one: Exported | None) -> str:
    if one is not None and one.refusal is not None:
        return "REFUSED"
    return "within tolerance" if parity["within_tolerance"] else "beyond tolerance, allowed"


def _percent(interval: Mapping[str, float | None]) -> str:
    """Return "84.0 (79.4 to 87.7)", in percent."""
    shown = [NONE if (value := interval[key]) is None else f"{100 * value:.1f}" for key in ("estimate", "low", "high")]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


def _place(one: Exported) -> str:
    if one.artifact is None:
        return f"{one.form}: refused" + (f": {one.refusal.message}" if one.refusal is not None else "")
    state = "is there already" if one.is_skipped else "exported"
    return f"{one.form} {one.artifact.id} {state}: {one.artifact.path}"


def _described(one: Exported) -> dict[str, Any]:
    artifact = one.artifact
    return {
        "form": one.form,
        "id": None if artifact is None else artifact.id,
        "path": None if artifact is None else str(artifact.path),
        "skipped": one.is_skipped,
        "summary": {} if artifact is None else dict(artifact.summary),
        "parity": one.parity,
        "refusal": None if one.refusal is None else {"what": one.refusal.message, "do": one.refusal.hint},
    }
